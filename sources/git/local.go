package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage"

	"github.com/caravanserai/cara/sources"
)

// localRemote reads a repository on this machine in-process. It is opened anew each time: go-git's repositories are
// not safe for concurrent use, and an open one does not see packs that were written later.
type localRemote struct{ addr address }

func (r *localRemote) close() {}

func (r *localRemote) open() (*gogit.Repository, error) {
	repo, err := gogit.PlainOpenWithOptions(r.addr.path, &gogit.PlainOpenOptions{EnableDotGitCommonDir: true})
	switch {
	case errors.Is(err, gogit.ErrRepositoryNotExists):
		if _, statErr := os.Stat(r.addr.path); errors.Is(statErr, os.ErrPermission) {
			return nil, sources.Human(sources.ReasonAuthFailed, "%s may not be read by the user that cara-server runs as", r.addr)
		}
		return nil, sources.Human(sources.ReasonNotFound, "%s is not a git repository; check spec.git.url", r.addr)
	case errors.Is(err, os.ErrPermission):
		return nil, sources.Human(sources.ReasonAuthFailed, "%s may not be read by the user that cara-server runs as", r.addr)
	case err != nil:
		return nil, r.explain(err)
	}
	return repo, nil
}

func (r *localRemote) explain(err error) error {
	if known, ok := errors.AsType[*sources.Error](err); ok {
		return known
	}
	return sources.Retry(sources.ReasonUnreachable, "%s cannot be read: %s", r.addr, credentials{}.scrub(err.Error()))
}

// list returns every ref.
func (r *localRemote) list(ctx context.Context, _ []string) (*listing, error) {
	repo, err := r.open()
	if err != nil {
		return nil, err
	}
	refs, err := repo.Storer.IterReferences()
	if err != nil {
		return nil, r.explain(err)
	}
	defer refs.Close()
	l := &listing{refs: map[string]ref{}}
	err = refs.ForEach(func(found *plumbing.Reference) error {
		if found.Type() == plumbing.HashReference {
			l.refs[found.Name().String()] = r.peel(repo.Storer, found.Hash())
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, r.explain(err)
	}
	head, err := repo.Storer.Reference(plumbing.HEAD)
	if err != nil {
		return l, nil //nolint:nilerr // a repository without HEAD is one whose HEAD leads nowhere
	}
	if head.Type() == plumbing.HashReference {
		l.refs["HEAD"] = ref{hash: head.Hash().String()}
	} else if to, ok := l.refs[head.Target().String()]; ok {
		l.refs["HEAD"], l.head = to, head.Target().String()
	}
	return l, nil
}

// peel looks behind annotated tags.
func (r *localRemote) peel(s storage.Storer, h plumbing.Hash) ref {
	found := ref{hash: h.String()}
	if c, err := findCommit(&localObjects{s}, h); err == nil && c.hash != h {
		found.peeled = c.hash.String()
	}
	return found
}

// objects opens the repository for reading.
func (r *localRemote) objects() (objects, error) {
	repo, err := r.open()
	if err != nil {
		return nil, err
	}
	return &localObjects{repo.Storer}, nil
}

// localObjects reads a repository's store, sizes first.
type localObjects struct{ s storage.Storer }

func (l *localObjects) object(h plumbing.Hash) (object, error) {
	for _, typ := range []plumbing.ObjectType{plumbing.TreeObject, plumbing.CommitObject, plumbing.TagObject} {
		data, err := l.read(typ, h, maxTree)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		return object{typ, data}, err
	}
	return object{}, fmt.Errorf("%w: %s", errAbsent, h)
}

func (l *localObjects) want(map[plumbing.Hash]struct{}) {}

func (l *localObjects) blob(ctx context.Context, h plumbing.Hash) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.read(plumbing.BlobObject, h, sources.MaxFileBytes)
}

func (l *localObjects) read(typ plumbing.ObjectType, h plumbing.Hash, most int64) ([]byte, error) {
	size, err := l.s.EncodedObjectSize(h)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h, err)
	}
	if size > most {
		return nil, tooLarge()
	}
	o, err := l.s.EncodedObject(typ, h)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h, err)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h, err)
	}
	return data, nil
}

func (l *localObjects) close() {}
