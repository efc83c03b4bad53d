package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// maxAlternates limits the number of alternate object directories; git follows 5 levels.
const maxAlternates = 64

// openRepository finds a repository as git does: bare, the .git folder of a work tree, or a linked work tree, with or
// without .git at the end of its path. It does not use go-git's PlainOpen, which rejects extensions that do not matter for
// reading and does not follow relative alternates.
func openRepository(a address) (*repository, error) {
	dir, common, err := gitDir(a)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(a, common); err != nil {
		return nil, err
	}
	at := osfs.New(dir)
	if common != dir {
		at = dotgit.NewRepositoryFilesystem(at, osfs.New(common))
	}
	repo := &repository{refs: filesystem.NewStorage(at, cache.NewObjectLRUDefault())}
	repo.stores = append(repo.stores, repo.refs)
	borrowed, err := alternates(filepath.Join(common, "objects"))
	if err != nil {
		return nil, err
	}
	for _, objects := range borrowed {
		repo.stores = append(repo.stores, filesystem.NewStorage(osfs.New(filepath.Dir(objects)), cache.NewObjectLRUDefault()))
	}
	return repo, nil
}

// gitDir returns the repository's own folder and the folder with its objects. They differ in a linked work tree.
func gitDir(a address) (dir, common string, err error) {
	for _, candidate := range []string{filepath.Join(a.path, ".git"), a.path, a.path + ".git"} {
		dir, err := linked(candidate)
		if err != nil {
			return "", "", unopened(a, err)
		}
		common := dir
		switch data, err := os.ReadFile(filepath.Join(dir, "commondir")); {
		case err == nil:
			common = beside(dir, strings.TrimSpace(string(data)))
		case !absent(err):
			return "", "", unopened(a, err)
		}
		if _, err = os.Stat(filepath.Join(dir, "HEAD")); err == nil {
			_, err = os.Stat(filepath.Join(common, "objects"))
		}
		if err == nil {
			return dir, common, nil
		}
		if !absent(err) {
			return "", "", unopened(a, err)
		}
	}
	return "", "", sources.Human(api.ReasonRepositoryNotFound, "%s is not a git repository; check spec.git.url", a)
}

// linked follows a .git file to the folder that it names.
func linked(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Size() > 4096 {
		if absent(err) {
			err = nil
		}
		return path, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	to, ok := strings.CutPrefix(string(data), "gitdir:")
	if !ok {
		return path, nil
	}
	return beside(filepath.Dir(path), strings.TrimSpace(to)), nil
}

func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// absent reports whether a path does not exist, including a path below a file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || err != nil && strings.HasSuffix(err.Error(), "not a directory")
}

func unopened(a address, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return sources.Human(api.ReasonAuthFailed, "%s may not be read by the user that cara-server runs as", a)
	}
	return err
}

// checkFormat returns an error for a repository whose objects or refs cannot be read.
func checkFormat(a address, common string) error {
	data, err := os.ReadFile(filepath.Join(common, "config"))
	if absent(err) {
		return nil // git uses its defaults
	}
	if err != nil {
		return unopened(a, err)
	}
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(data)).Decode(c); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	version := c.Section("core").Option("repositoryformatversion")
	if version != "" && version != "0" && version != "1" {
		return sources.Human(api.ReasonProtocolError, "%s has repository format version %s; only 0 and 1 are read", a, version)
	}
	for _, o := range c.Section("extensions").Options {
		switch key := strings.ToLower(o.Key); {
		case key == "objectformat" && strings.EqualFold(o.Value, "sha1"), key == "refstorage" && strings.EqualFold(o.Value, "files"):
		case key == "objectformat":
			return unreadFormat(o.Value)
		case key == "refstorage":
			return sources.Human(api.ReasonProtocolError,
				"%s keeps its refs in the format %s; only files is read: run `git refs migrate --ref-format=files` there, or serve it over https or ssh", a, o.Value)
		case version == "1" && !slices.Contains(harmless(), key):
			return sources.Human(api.ReasonProtocolError, "%s has the extension %q, which is not known; serve it over https or ssh", a, o.Key)
		}
	}
	return nil
}

// harmless lists the extensions that do not change how objects and refs are read.
func harmless() []string {
	return []string{"noop", "noop-v1", "partialclone", "preciousobjects", "worktreeconfig", "relativeworktrees"}
}

// alternates lists the alternate object directories, and those of the alternates. A relative path starts at the directory
// that names it.
func alternates(objects string) ([]string, error) {
	var found []string
	seen := map[string]bool{filepath.Clean(objects): true}
	for todo := []string{objects}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		data, err := os.ReadFile(filepath.Join(at, "info", "alternates"))
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("alternates: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			line := lines.Text()
			if line == "" || line[0] == '#' {
				continue
			}
			if plain, err := strconv.Unquote(line); err == nil {
				line = plain
			}
			next := beside(at, line)
			if seen[next] {
				continue
			}
			if len(found) == maxAlternates {
				return nil, fmt.Errorf("alternates: more than %d", maxAlternates)
			}
			seen[next] = true
			found, todo = append(found, next), append(todo, next)
		}
	}
	return found, nil
}
