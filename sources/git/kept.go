package git

import (
	"github.com/go-git/go-git/v5/plumbing"
)

// Limits of the memory for folders.
const (
	maxKept    = 8 << 20  // of one driver
	maxAllKept = 64 << 20 // of all drivers
	// perFolder is about what a folder costs beside its content: a small one has 40 bytes, and its place in the map more.
	perFolder = 128
)

// kept are the folders of the commit that was read last. The next fetch then brings only the folders that differ.
type kept struct {
	commit, root plumbing.Hash
	trees        map[plumbing.Hash]object // nil for a local repository, which has them itself
	size         int64                    // of trees, in memory
	counted      int64                    // the part of Git.kept; guarded by Git.mu
}

// newKept returns the folders of a commit that was read from objs.
func newKept(c commit, objs objects) *kept {
	k := &kept{commit: c.hash, root: c.tree}
	p, ok := objs.(*pack)
	if !ok {
		return k
	}
	k.trees = make(map[plumbing.Hash]object, len(p.objects))
	k.add(p)
	return k
}

// add adds the folders of a pack.
func (k *kept) add(p *pack) {
	for h, o := range p.objects {
		if _, have := k.trees[h]; !have && o.typ == plumbing.TreeObject {
			k.trees[h] = o
			k.size += perFolder + int64(len(o.data))
		}
	}
}

// drop removes folders that a difference has replaced. If another path has the same folder, the next difference of that path
// fails, and the commit is read whole.
func (k *kept) drop(replaced []plumbing.Hash) {
	for _, h := range replaced {
		if o, have := k.trees[h]; have {
			k.size -= perFolder + int64(len(o.data))
			delete(k.trees, h)
		}
	}
}

// next returns what is kept once a difference was read. k is not used any more then.
func (k *kept) next(c commit, objs objects, replaced []plumbing.Hash) *kept {
	after := &kept{commit: c.hash, root: c.tree, trees: k.trees, size: k.size}
	if p, ok := objs.(*pack); ok {
		after.drop(replaced)
		after.add(p)
	}
	return after
}

// keep replaces what the driver keeps, if there is room for it.
func (d *driver) keep(k *kept) {
	d.git.mu.Lock()
	defer d.git.mu.Unlock()
	if d.kept != nil {
		d.git.kept -= d.kept.counted
		d.kept = nil
	}
	if k == nil || k.size > maxKept || d.git.kept+k.size > maxAllKept {
		return
	}
	k.counted = k.size
	d.git.kept += k.counted
	d.kept = k
}
