package testgit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Branch is the default branch of every repository.
const Branch = "main"

// Repo is a bare repository below a root, with a work tree that pushes to it by local path. Its methods must not be called
// concurrently.
type Repo struct {
	Name string
	Bare string // local path for cloning
	Work string
	Env  []string // added to git's environment, for example GIT_SSL_CAINFO

	remote string
}

// hostConfig is like that of the public hosts: clients may fetch a commit by its hash and use partial clones.
const hostConfig = `[uploadpack]
	allowReachableSHA1InWant = true
	allowFilter = true
[http]
	receivepack = true
`

// Create creates an empty repository root/name.git, whose HEAD is the branch main, and its work tree.
func Create(ctx context.Context, root, name string) (*Repo, error) {
	r := &Repo{Name: name, Bare: filepath.Join(root, name+".git"), Work: filepath.Join(root, ".work", name)}
	r.remote = r.Bare
	// Without git's templates, which are sample hooks.
	if _, err := git(ctx, root, nil, "init", "--quiet", "--template=", "--bare", "--initial-branch="+Branch, r.Bare); err != nil {
		return nil, err
	}
	config, err := os.OpenFile(filepath.Join(r.Bare, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("configure repository %s: %w", name, err)
	}
	_, err = config.WriteString(hostConfig)
	if err := errors.Join(err, config.Close()); err != nil {
		return nil, fmt.Errorf("configure repository %s: %w", name, err)
	}
	if _, err := git(ctx, root, nil, "init", "--quiet", "--template=", "--initial-branch="+Branch, r.Work); err != nil {
		return nil, err
	}
	return r, nil
}

// PushTo makes later pushes use this URL instead of the local path.
func (r *Repo) PushTo(url string) { r.remote = url }

// Git runs a git command in the work tree and returns its trimmed standard output.
func (r *Repo) Git(ctx context.Context, args ...string) (string, error) {
	return git(ctx, r.Work, r.Env, args...)
}

// Write writes a file in the work tree and creates its directories.
func (r *Repo) Write(path, content string) error {
	full := filepath.Join(r.Work, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Remove removes a file or directory from the work tree. It must exist.
func (r *Repo) Remove(path string) error {
	full := filepath.Join(r.Work, filepath.FromSlash(path))
	if _, err := os.Lstat(full); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := os.RemoveAll(full); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Symlink creates a link in the work tree, with any target.
func (r *Repo) Symlink(path, target string) error {
	full := filepath.Join(r.Work, filepath.FromSlash(path))
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Symlink(target, full); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// Commit commits the whole work tree, even without changes, and returns the commit's hash.
func (r *Repo) Commit(ctx context.Context, message string) (string, error) {
	if _, err := r.Git(ctx, "add", "--all"); err != nil {
		return "", err
	}
	if _, err := r.Git(ctx, "commit", "--quiet", "--allow-empty", "-m", message); err != nil {
		return "", err
	}
	return r.Head(ctx)
}

// Head returns the hash of the current commit.
func (r *Repo) Head(ctx context.Context) (string, error) { return r.Git(ctx, "rev-parse", "HEAD") }

// Push pushes the current branch and all tags.
func (r *Repo) Push(ctx context.Context) error {
	_, err := r.Git(ctx, "push", "--quiet", "--tags", r.remote, "HEAD")
	return err
}

// ForcePush pushes a rewritten history.
func (r *Repo) ForcePush(ctx context.Context) error {
	_, err := r.Git(ctx, "push", "--quiet", "--force", "--tags", r.remote, "HEAD")
	return err
}

// Branch switches to a branch, and creates it from the current commit if it does not exist.
func (r *Repo) Branch(ctx context.Context, name string) error {
	if _, err := r.Git(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+name); err == nil {
		_, err = r.Git(ctx, "switch", "--quiet", name)
		return err
	}
	_, err := r.Git(ctx, "switch", "--quiet", "-c", name)
	return err
}

// DeleteBranch removes a branch from the bare repository, as merging a pull request does.
func (r *Repo) DeleteBranch(ctx context.Context, name string) error {
	_, err := r.Git(ctx, "push", "--quiet", r.remote, ":refs/heads/"+name)
	return err
}

// Tag creates or moves an annotated tag on the current commit. ForcePush publishes a moved tag.
func (r *Repo) Tag(ctx context.Context, name string) error {
	_, err := r.Git(ctx, "tag", "--force", "-m", name, name)
	return err
}

// Reset resets the current branch and the work tree to a commit.
func (r *Repo) Reset(ctx context.Context, commit string) error {
	_, err := r.Git(ctx, "reset", "--quiet", "--hard", commit)
	return err
}

func git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", args...)
	command.Dir = dir
	command.Env = append(environment(), env...)
	out, err := command.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// environment returns the environment of a user without configuration or prompts.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=/nonexistent",
		"LC_ALL=C",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
	}
}
