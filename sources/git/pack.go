package git

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// Limits of one pack. Each is checked on declared sizes, before memory or time is spent.
const (
	maxObjects  = 500_000
	maxInflated = 1 << 30  // all objects; large ones are inflated only to find the start of the next
	maxTree     = 8 << 20  // one tree, commit or tag
	maxTrees    = 48 << 20 // all trees, commits and tags, in memory
	maxLive     = 48 << 20 // bases in memory while deltas are resolved
)

var errNotPack = errors.New("malformed pack")

// object is a commit, tree or tag in memory.
type object struct {
	typ  plumbing.ObjectType
	data []byte
}

// entry is one object of a pack. Its content stays in the spool.
type entry struct {
	offset int64
	length int64 // declared: of the object, or of the delta
	typ    plumbing.ObjectType
}

// pack is one received pack. It is not safe for concurrent use.
type pack struct {
	spool    *spool
	entries  []entry
	byRef    map[plumbing.Hash][]int32 // deltas by the hash of their base
	byBase   map[int64][]int32         // deltas by the offset of their base
	objects  map[plumbing.Hash]object
	known    map[plumbing.Hash]object // folders that are not in the pack, and which deltas may build on
	treesz   int64
	built    int64                   // bytes built from deltas
	blobs    map[plumbing.Hash]int32 // complete blobs small enough for a manifest
	large    map[plumbing.Hash]bool  // complete blobs above that size
	filtered bool                    // the server omitted large blobs
	skipped  bool                    // a delta was not applied, because its result is too large
	wanted   map[plumbing.Hash]struct{}
	kept     map[plumbing.Hash][]byte // wanted blobs that were deltas; nil until they are resolved
	keptsz   int64
	resolved int // how often deltas of blobs were resolved
}

// readPack reads a pack in one pass. It skips large blobs, keeps trees and commits, and remembers the position of the rest.
func readPack(r io.Reader, s *spool, known map[plumbing.Hash]object) (*pack, error) {
	p := &pack{
		spool: s, known: known, byRef: map[plumbing.Hash][]int32{}, byBase: map[int64][]int32{},
		objects: map[plumbing.Hash]object{}, blobs: map[plumbing.Hash]int32{}, large: map[plumbing.Hash]bool{},
	}
	scan := packfile.NewScanner(io.TeeReader(r, s))
	_, count, err := scan.Header()
	if err != nil {
		return nil, broken(err)
	}
	if count > maxObjects {
		return nil, tooMany("objects", maxObjects)
	}
	var inflated int64
	for range count {
		h, err := scan.NextObjectHeader()
		if err != nil {
			return nil, broken(err)
		}
		if inflated += h.Length; h.Length < 0 || h.Length > maxInflated || inflated > maxInflated {
			return nil, sources.Human(api.ReasonTooLarge, "the commit's files are larger than %s unpacked; keep the manifests in a repository or branch of their own", size(maxInflated))
		}
		if err := p.take(scan, h); err != nil {
			return nil, err
		}
	}
	want, err := scan.Checksum()
	if err != nil || want.IsZero() {
		return nil, broken(errors.Join(errors.New("no checksum"), err))
	}
	return p, p.resolve(plumbing.TreeObject, plumbing.CommitObject, plumbing.TagObject)
}

func (p *pack) take(scan *packfile.Scanner, h *packfile.ObjectHeader) error {
	i := int32(len(p.entries))
	var err error
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.TagObject:
		if h.Length > maxTree {
			return sources.Human(api.ReasonTooLarge, "the commit has a folder of more than %s of names", size(maxTree))
		}
		buf := &exact{b: make([]byte, 0, h.Length)}
		if _, _, err = scan.NextObject(buf); err == nil {
			err = p.keep(h.Type, buf.b, h.Length)
		}
	case plumbing.BlobObject:
		hash := plumbing.NewHasher(plumbing.BlobObject, h.Length)
		if _, _, err = scan.NextObject(hash); err != nil {
			break
		}
		if h.Length > sources.MaxFileBytes {
			p.large[hash.Sum()] = true
			break
		}
		p.blobs[hash.Sum()] = i
	case plumbing.OFSDeltaObject:
		p.byBase[h.OffsetReference] = append(p.byBase[h.OffsetReference], i)
		_, _, err = scan.NextObject(io.Discard)
	case plumbing.REFDeltaObject:
		p.byRef[h.Reference] = append(p.byRef[h.Reference], i)
		_, _, err = scan.NextObject(io.Discard)
	default:
		err = fmt.Errorf("object of type %d", h.Type)
	}
	if err != nil {
		return broken(err)
	}
	p.entries = append(p.entries, entry{offset: h.Offset, length: h.Length, typ: h.Type})
	return nil
}

func (p *pack) keep(typ plumbing.ObjectType, data []byte, length int64) error {
	if int64(len(data)) != length {
		return errors.New("object is shorter than declared")
	}
	if p.treesz += length; p.treesz > maxTrees {
		return sources.Human(api.ReasonTooLarge, "the commit has more than %s of folders and names; keep the manifests in a repository or branch of their own", size(maxTrees))
	}
	p.objects[plumbing.ComputeHash(typ, data)] = object{typ, data}
	return nil
}

// exact is a buffer that never grows beyond its initial capacity.
type exact struct{ b []byte }

func (e *exact) Write(p []byte) (int, error) {
	if len(e.b)+len(p) > cap(e.b) {
		return 0, errors.New("object is longer than declared")
	}
	e.b = append(e.b, p...)
	return len(p), nil
}

// broken marks an error of the pack itself. Errors of the stream below it stay as they are.
func broken(err error) error {
	var known *sources.Error
	var said *remoteError
	if errors.As(err, &known) || errors.As(err, &said) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotPack, err)
}

func tooMany(what string, most int) error {
	return sources.Human(api.ReasonTooLarge, "the commit has more than %d %s; keep the manifests in a repository or branch of their own", most, what)
}
