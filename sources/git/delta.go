package git

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// base is content that deltas are applied to. It is released after the last of them.
type base struct {
	typ  plumbing.ObjectType
	data []byte
	left int
}

type step struct {
	entry int32
	on    *base
}

// resolve applies the deltas whose base is an object of these types, each once, depth first. So a long chain holds two
// contents at a time, and maxLive limits what a branching one holds.
func (p *pack) resolve(types ...plumbing.ObjectType) error {
	byBase, byRef := p.byBase, p.byRef
	p.byBase, p.byRef = maps.Clone(byBase), maps.Clone(byRef) // children uses them up
	defer func() { p.byBase, p.byRef = byBase, byRef }()
	scan := packfile.NewScanner(p.spool.reader())
	var todo steps
	if err := p.resolveKnown(scan, &todo, types); err != nil {
		return err
	}
	for i, e := range p.entries {
		if !slices.Contains(types, e.typ) || len(p.byBase[e.offset]) == 0 && len(p.byRef) == 0 {
			continue
		}
		if e.length > p.cap(e.typ) {
			p.skipped = true
			continue
		}
		data, err := p.inflate(scan, int32(i))
		if err != nil {
			return err
		}
		if err := todo.push(p.children(e.offset, plumbing.ComputeHash(e.typ, data)), e.typ, data); err != nil {
			return err
		}
		if err := p.applyAll(scan, &todo); err != nil {
			return err
		}
	}
	return nil
}

// resolveKnown applies the deltas on objects that are not in the pack.
func (p *pack) resolveKnown(scan *packfile.Scanner, todo *steps, types []plumbing.ObjectType) error {
	if len(p.known) == 0 {
		return nil
	}
	for hash := range p.byRef {
		base, ok := p.known[hash]
		if !ok || !slices.Contains(types, base.typ) {
			continue
		}
		const outside = -1 // no entry of the pack is there
		if err := todo.push(p.children(outside, hash), base.typ, base.data); err != nil {
			return err
		}
		if err := p.applyAll(scan, todo); err != nil {
			return err
		}
	}
	return nil
}

// applyAll applies the deltas that are due, and those that build on their results.
func (p *pack) applyAll(scan *packfile.Scanner, todo *steps) error {
	for len(todo.list) > 0 {
		s := todo.pop()
		data, err := p.apply(scan, s)
		if err != nil {
			return err
		}
		todo.applied(s)
		if data == nil {
			p.skipped = true
			continue
		}
		hash := plumbing.ComputeHash(s.on.typ, data)
		if err := p.settle(s.on.typ, hash, data); err != nil {
			return err
		}
		if err := todo.push(p.children(p.entries[s.entry].offset, hash), s.on.typ, data); err != nil {
			return err
		}
	}
	return nil
}

// steps is a stack of deltas to apply. live is the number of bytes of the bases that it keeps.
type steps struct {
	list []step
	live int64
}

// push adds the deltas that build on an object.
func (t *steps) push(children []int32, typ plumbing.ObjectType, data []byte) error {
	if len(children) == 0 {
		return nil
	}
	if t.live += int64(len(data)); t.live > maxLive {
		return sources.Human(api.ReasonTooLarge, "the pack's deltas need more than %s of memory", size(maxLive))
	}
	on := &base{typ, data, len(children)}
	for _, c := range children {
		t.list = append(t.list, step{c, on})
	}
	return nil
}

func (t *steps) pop() step {
	s := t.list[len(t.list)-1]
	t.list = t.list[:len(t.list)-1]
	return s
}

// applied releases the base of a delta after its last use.
func (t *steps) applied(s step) {
	if s.on.left--; s.on.left == 0 {
		t.live -= int64(len(s.on.data))
	}
}

// children returns the deltas on one object. Each is returned once, so that a malicious pack cannot create a loop.
func (p *pack) children(offset int64, hash plumbing.Hash) []int32 {
	all := append(slices.Clone(p.byBase[offset]), p.byRef[hash]...)
	delete(p.byBase, offset)
	delete(p.byRef, hash)
	return all
}

// settle stores an object that was a delta.
func (p *pack) settle(typ plumbing.ObjectType, hash plumbing.Hash, data []byte) error {
	if typ != plumbing.BlobObject {
		return p.keep(typ, data, int64(len(data)))
	}
	if _, wanted := p.wanted[hash]; !wanted && (p.resolved < 2 || p.keptsz+int64(len(data)) > sources.MaxSnapshotBytes/2) {
		return nil // after the first time, more files are likely to be wanted
	}
	if p.keptsz += int64(len(data)); p.keptsz > sources.MaxSnapshotBytes {
		return sources.Human(api.ReasonTooLarge, "the manifests are larger than %s together; the limit of a snapshot", size(sources.MaxSnapshotBytes))
	}
	p.kept[hash] = data
	return nil
}

// apply builds the object of a delta. It returns nil if the result is larger than anything that is read.
func (p *pack) apply(scan *packfile.Scanner, s step) ([]byte, error) {
	most := p.cap(s.on.typ)
	if p.entries[s.entry].length > most+1024 {
		return nil, nil
	}
	delta, err := p.inflate(scan, s.entry)
	if err != nil {
		return nil, err
	}
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(s.on.data)) {
		return nil, broken(errors.New("delta does not fit its base"))
	}
	to, n := binary.Uvarint(delta[n:])
	if n <= 0 {
		return nil, broken(errors.New("delta without a size"))
	}
	if to > uint64(most) {
		return nil, nil
	}
	if p.built += int64(to); p.built > maxInflated {
		return nil, sources.Human(api.ReasonTooLarge, "the commit's files are larger than %s unpacked; keep the manifests in a repository or branch of their own", size(maxInflated))
	}
	data, err := packfile.PatchDelta(s.on.data, delta)
	if err != nil {
		return nil, broken(err)
	}
	return data, nil
}

// cap returns the maximum size of an object of a type.
func (p *pack) cap(typ plumbing.ObjectType) int64 {
	if typ == plumbing.BlobObject {
		return sources.MaxFileBytes
	}
	return maxTree
}

// inflate reads one entry, whose length was checked.
func (p *pack) inflate(scan *packfile.Scanner, i int32) ([]byte, error) {
	e := p.entries[i]
	if _, err := scan.SeekObjectHeader(e.offset); err != nil {
		return nil, broken(err)
	}
	buf := &exact{b: make([]byte, 0, e.length)}
	if _, _, err := scan.NextObject(buf); err != nil {
		return nil, broken(err)
	}
	if int64(len(buf.b)) != e.length {
		return nil, broken(errors.New("object is shorter than declared"))
	}
	return buf.b, nil
}
