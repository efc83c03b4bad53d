package git

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// errCorrupt means that an object's content does not match its hash.
var errCorrupt = errors.New("corrupt object")

// localRemote reads a local repository in-process. It opens the repository each time: go-git's repositories are not safe for
// concurrent use, and an open one does not see packs that were written later.
type localRemote struct{ addr address }

func (r *localRemote) close() {}

func (r *localRemote) explain(err error) error {
	if known, ok := errors.AsType[*sources.Error](err); ok {
		return known
	}
	return sources.Retry(api.ReasonUnreachable, "%s cannot be read: %s", r.addr, credentials{}.scrub(err.Error()))
}

// list returns every ref.
func (r *localRemote) list(ctx context.Context, _ []string) (*listing, error) {
	repo, err := openRepository(r.addr)
	if err != nil {
		return nil, r.explain(err)
	}
	refs, err := repo.refs.IterReferences()
	if err != nil {
		return nil, r.explain(err)
	}
	defer refs.Close()
	l := &listing{refs: map[string]ref{}}
	err = refs.ForEach(func(found *plumbing.Reference) error {
		if found.Type() == plumbing.HashReference {
			l.refs[found.Name().String()] = repo.peel(found.Hash())
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, r.explain(err)
	}
	head, err := repo.refs.Reference(plumbing.HEAD)
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

// objects opens the repository for reading.
func (r *localRemote) objects() (objects, error) {
	repo, err := openRepository(r.addr)
	if err != nil {
		return nil, r.explain(err)
	}
	return repo, nil
}

// repository is a local repository. It reads missing objects from its alternates.
type repository struct {
	refs   *filesystem.Storage
	stores []*filesystem.Storage // refs first
}

func (l *repository) peel(h plumbing.Hash) ref {
	found := ref{hash: h.String()}
	if c, err := findCommit(l, h); err == nil && c.hash != h {
		found.peeled = c.hash.String()
	}
	return found
}

func (l *repository) object(h plumbing.Hash) (object, error) {
	for _, typ := range []plumbing.ObjectType{plumbing.TreeObject, plumbing.CommitObject, plumbing.TagObject} {
		data, err := l.read(typ, h, maxTree)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		return object{typ, data}, err
	}
	return object{}, fmt.Errorf("%w: %s", errAbsent, h)
}

func (l *repository) want(map[plumbing.Hash]struct{}) {}

func (l *repository) blob(ctx context.Context, h plumbing.Hash) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.read(plumbing.BlobObject, h, sources.MaxFileBytes)
}

// read returns an object from the first store that has it intact.
func (l *repository) read(typ plumbing.ObjectType, h plumbing.Hash, most int64) ([]byte, error) {
	var failed error
	for _, s := range l.stores {
		data, err := readFrom(s, typ, h, most)
		if err == nil {
			return data, nil
		}
		if failed == nil || errors.Is(failed, plumbing.ErrObjectNotFound) {
			failed = err
		}
	}
	return nil, failed
}

func readFrom(s *filesystem.Storage, typ plumbing.ObjectType, h plumbing.Hash, most int64) ([]byte, error) {
	size, err := s.EncodedObjectSize(h)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	if size > most {
		return nil, tooLarge()
	}
	o, err := s.EncodedObject(typ, h)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	if plumbing.ComputeHash(typ, data) != h {
		return nil, fmt.Errorf("%w: %s has another content than its name says", errCorrupt, h)
	}
	return data, nil
}

func (l *repository) close() {}
