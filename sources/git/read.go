package git

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// maxResolved limits how often the deltas of one pack are resolved because more blobs are wanted.
const maxResolved = 20

// errAbsent means that an object does not exist.
var errAbsent = errors.New("object is not there")

// objects provides the objects of a commit.
type objects interface {
	// object returns a commit, tree or tag, or errAbsent.
	object(h plumbing.Hash) (object, error)
	// want announces blobs that will be read.
	want(all map[plumbing.Hash]struct{})
	// blob returns the content of a wanted blob, or a sources.FileError if it is too large.
	blob(ctx context.Context, h plumbing.Hash) ([]byte, error)
	close()
}

func (p *pack) object(h plumbing.Hash) (object, error) {
	o, ok := p.objects[h]
	if !ok {
		o, ok = p.known[h]
	}
	if !ok {
		return object{}, fmt.Errorf("%w: %s", errAbsent, h)
	}
	return o, nil
}

// want adds blobs. Deltas are resolved again when the first new one is read.
func (p *pack) want(more map[plumbing.Hash]struct{}) {
	if p.wanted == nil {
		p.wanted = map[plumbing.Hash]struct{}{}
	}
	for h := range more {
		if _, known := p.wanted[h]; known {
			continue
		}
		p.wanted[h] = struct{}{}
		if _, whole := p.blobs[h]; !whole {
			p.kept = nil
		}
	}
}

// blob reads one blob. The first one that is stored as a delta causes all deltas to be resolved.
func (p *pack) blob(ctx context.Context, h plumbing.Hash) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if i, ok := p.blobs[h]; ok {
		return p.inflate(packfile.NewScanner(p.spool.reader()), i)
	}
	if p.kept == nil {
		if p.resolved++; p.resolved > maxResolved {
			return nil, sources.Human(api.ReasonTooLarge, "the manifests use other files in more than %d steps; keep the manifests in a repository or branch of their own", maxResolved)
		}
		p.kept, p.keptsz, p.built = map[plumbing.Hash][]byte{}, 0, 0
		if err := p.resolve(plumbing.BlobObject); err != nil {
			p.kept = nil
			return nil, err
		}
	}
	if data, ok := p.kept[h]; ok {
		return data, nil
	}
	if p.filtered || p.skipped || p.large[h] {
		return nil, tooLarge() // a blob that is too large was not sent, or not kept
	}
	return nil, fmt.Errorf("%w: %s", errAbsent, h)
}

func (p *pack) close() { p.spool.close() }

func tooLarge() error {
	return &sources.FileError{Message: fmt.Sprintf("is larger than %s, the limit of a manifest file; split it", size(sources.MaxFileBytes))}
}
