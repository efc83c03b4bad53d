package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// inTree returns the path in the source of a path that the library has resolved. ok is false if it is elsewhere.
func (in *input) inTree(resolved string) (name string, ok bool) {
	rel, err := filepath.Rel(in.root, resolved)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	if rel == "." {
		rel = ""
	}
	return filepath.ToSlash(rel), true
}

// from returns a path of the source as `files[].from` has it, relative to the Compose file.
func (in *input) from(name string) string {
	rel, err := filepath.Rel(in.dir, filepath.Join(in.root, filepath.FromSlash(name)))
	if err != nil {
		return name // both are below root
	}
	if rel = filepath.ToSlash(rel); !strings.HasPrefix(rel, "../") && rel != ".." {
		rel = "./" + rel
	}
	return rel
}

// file adds a file of the source. What is wrong with it is known when it is read, and reported at its key.
func (s *service) file(key string, f *carav1.File) {
	if s.keyOf == nil {
		s.keyOf = map[*carav1.File]string{}
	}
	s.keyOf[f] = s.key + "." + key
	s.out.Files = append(s.out.Files, f)
}

// origins returns where the services and their files come from.
func (c *converter) origins() map[string]manifest.Origin {
	all := map[string]manifest.Origin{}
	add := func(field, key string) {
		at := c.locate(key)
		all[field] = manifest.Origin{File: at.file, Line: at.line, Column: at.column, Path: key}
	}
	for i, s := range c.to.GetSpec().GetServices() {
		field := fmt.Sprintf("spec.services[%d]", i)
		add(field, "services."+c.original(s.GetName()))
		for j, f := range s.GetFiles() {
			if key := c.keyOf[f]; key != "" {
				add(fmt.Sprintf("%s.files[%d]", field, j), key)
			}
		}
	}
	return all
}

// look returns what is at a path of the source.
func (s *service) look(key, name string) (folder, ok bool) {
	folder, _, err := s.tree.Look(s.ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, false
	case err != nil:
		s.say(Refusal, key, "%v", err)
		return false, false
	}
	return folder, true
}

// treePath converts a bind of a path of the source.
func (s mounts) treePath(key, name string, v types.ServiceVolumeConfig) {
	before := len(s.findings)
	folder, exists := s.look(key, name)
	switch {
	case len(s.findings) > before: // it cannot be used
	case !exists && path.Ext(name) != "":
		s.say(Refusal, key, "%s does not exist in the source", name)
	case exists && !folder:
		s.file(key, &carav1.File{Path: v.Target, From: s.from(name)})
		if !v.ReadOnly {
			s.say(Note, key, "%s becomes a file of the service: what the container writes to it is lost with the container", s.from(name))
		}
	case exists && v.ReadOnly:
		s.file(key, &carav1.File{Path: v.Target, From: strings.TrimSuffix(s.from(name), "/.") + "/"})
	default:
		s.dataDirectory(key, s.from(name), v)
	}
}

// entriesOf returns how many files a directory has, as far as it may be known.
func (s mounts) entriesOf(resolved string) int {
	if s.tree == nil {
		entries, _ := os.ReadDir(resolved) // a directory that does not exist has none
		return len(entries)
	}
	name, ok := s.inTree(resolved)
	if !ok {
		return 0
	}
	_, files, err := s.tree.Look(s.ctx, name)
	if err != nil {
		return 0
	}
	return files
}

// treeFile converts a config or a secret in a source, and reports whether it did. Its content must be in the source.
func (s files) treeFile(key, what string, c types.FileObjectConfig, ref types.FileReferenceConfig, target string) bool {
	if s.tree == nil {
		return false
	}
	f := &carav1.File{Path: ref.Target, Mode: s.fileMode(key, ref)}
	if f.Path == "" {
		f.Path = target
	} else if !path.IsAbs(f.Path) {
		f.Path = path.Join(path.Dir(target), f.Path)
	}
	if c.File != "" && c.Content == "" && c.Environment == "" && !bool(c.External) {
		name, ok := s.inTree(c.File)
		folder, exists := false, false
		if ok {
			folder, exists = s.look(key, name)
		}
		if !ok || !exists || folder {
			s.say(Refusal, key, "%s: its file is not a file of the source; put it into the repository, or take the value from a variable of the source with environment", what)
			return true
		}
		f.From = s.from(name)
		if strings.HasPrefix(what, "secret") {
			s.say(Warning, key, "%s is in the repository: put it into a Secret, name it in spec.vars of the source, and use environment", what)
		}
		s.file(key, f)
		return true
	}
	content, err := s.content(c)
	switch {
	case err != nil:
		s.say(Refusal, key, "%s: %v", what, err)
	case !printable(content) || len(content) == 0:
		s.say(Refusal, key, "%s: it is empty, or it is not text", what)
	default:
		f.Content = string(content)
		s.out.Files = append(s.out.Files, f)
	}
	return true
}
