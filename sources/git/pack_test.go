package git

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// packer writes packs by hand, good and bad.
type packer struct {
	b     bytes.Buffer
	count uint32
}

func (p *packer) put(typ plumbing.ObjectType, declared int, before []byte, content io.Reader) (offset int) {
	offset = p.b.Len() + 12
	c := byte(typ)<<4 | byte(declared&15)
	for declared >>= 4; declared > 0; declared >>= 7 {
		p.b.WriteByte(c | 0x80)
		c = byte(declared & 0x7f)
	}
	p.b.WriteByte(c)
	p.b.Write(before)
	z := zlib.NewWriter(&p.b)
	_, _ = io.Copy(z, content)
	_ = z.Close()
	p.count++
	return offset
}

func (p *packer) object(typ plumbing.ObjectType, data []byte) (plumbing.Hash, int) {
	return plumbing.ComputeHash(typ, data), p.put(typ, len(data), nil, bytes.NewReader(data))
}

// delta puts an ofs-delta. Back is how far before it its base lies.
func (p *packer) delta(base int, delta []byte) int {
	back := p.b.Len() + 12 - base
	enc := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		enc = slices.Insert(enc, 0, byte(back&0x7f)|0x80)
	}
	return p.put(plumbing.OFSDeltaObject, len(delta), enc, bytes.NewReader(delta))
}

func (p *packer) bytes(count uint32) []byte {
	head := append([]byte("PACK"), 0, 0, 0, 2)
	all := append(binary.BigEndian.AppendUint32(head, count), p.b.Bytes()...)
	sum := sha1.Sum(all)
	return append(all, sum[:]...)
}

func entryOf(mode, name string, h plumbing.Hash) string {
	return mode + " " + name + "\x00" + string(h[:])
}

func (p *packer) commit(tree plumbing.Hash) plumbing.Hash {
	h, _ := p.object(plumbing.CommitObject, []byte("tree "+tree.String()+"\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nsubject\n\nbody\n"))
	return h
}

// list reads a pack and lists its manifests.
func list(t testing.TB, data []byte, commit plumbing.Hash) (*walk, error) {
	t.Helper()
	s := &spool{}
	t.Cleanup(s.close)
	p, err := readPack(bytes.NewReader(data), s, nil)
	if err != nil {
		return nil, err
	}
	c, err := findCommit(p, commit)
	if err != nil {
		return nil, err
	}
	m, err := sources.NewMatch(&carav1.SourceSpec{})
	if err != nil {
		t.Fatal(err)
	}
	return manifests(t.Context(), p, c.tree, m, "")
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestPackBomb(t *testing.T) {
	p := &packer{}
	const bomb = 256 << 20
	hash := plumbing.NewHasher(plumbing.BlobObject, bomb)
	if _, err := io.CopyN(hash, zeros{}, bomb); err != nil {
		t.Fatal(err)
	}
	blob := hash.Sum()
	p.put(plumbing.BlobObject, bomb, nil, io.LimitReader(zeros{}, bomb))
	good, _ := p.object(plumbing.BlobObject, []byte("good"))
	tree, _ := p.object(plumbing.TreeObject, []byte(entryOf("100644", "bomb.yaml", blob)+entryOf("100644", "good.yaml", good)))
	commit := p.commit(tree)
	data := p.bytes(p.count)
	if len(data) > 1<<20 {
		t.Fatalf("the bomb is %d bytes", len(data))
	}
	var w *walk
	var err error
	used := allocated(func() { w, err = list(t, data, commit) })
	if err != nil {
		t.Fatal(err)
	}
	if used > 16<<20 {
		t.Errorf("%d bytes allocated", used)
	}
	_, err = w.files[0].Read(t.Context())
	var unfit *sources.FileError
	if !errors.As(err, &unfit) || unfit.Message != "is larger than 1 MiB, the limit of a manifest file; split it" {
		t.Errorf("bomb: %v", err)
	}
	if data, err := w.files[1].Read(t.Context()); string(data) != "good" || err != nil {
		t.Errorf("good: %q, %v", data, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// varint is a size as deltas have it.
func varint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// copyAll is a delta instruction that copies n bytes (below 64 KiB) from the base's start.
func copyAll(n int) []byte { return []byte{0xb0, byte(n), byte(n >> 8)} }

func TestHostilePacks(t *testing.T) {
	tests := map[string]struct {
		make   func(p *packer) (commit plumbing.Hash, count uint32)
		want   string
		memory uint64
	}{
		"a tree of a billion paths": {func(p *packer) (plumbing.Hash, uint32) {
			below, _ := p.object(plumbing.BlobObject, []byte("x"))
			mode := "100644"
			for range 9 {
				var tree strings.Builder
				for i := range 10 {
					tree.WriteString(entryOf(mode, fmt.Sprintf("%d.yaml", i), below))
				}
				below, _ = p.object(plumbing.TreeObject, []byte(tree.String()))
				mode = "40000"
			}
			commit := p.commit(below)
			return commit, p.count
		}, "more than 10000 manifest files; the limit of a source: narrow it with spec.path or spec.include", 32 << 20},
		"folders without end": {func(p *packer) (plumbing.Hash, uint32) {
			below, _ := p.object(plumbing.TreeObject, nil)
			for range 600 {
				below, _ = p.object(plumbing.TreeObject, []byte(entryOf("40000", "d", below)))
			}
			commit := p.commit(below)
			return commit, p.count
		}, "folders are nested more than 512 deep at", 16 << 20},
		"more objects than there can be": {func(p *packer) (plumbing.Hash, uint32) {
			return plumbing.ZeroHash, 1 << 31
		}, "the commit has more than 500000 objects", 1 << 20},
		"fewer objects than declared": {func(p *packer) (plumbing.Hash, uint32) {
			tree, _ := p.object(plumbing.TreeObject, nil)
			commit := p.commit(tree)
			return commit, p.count + 5
		}, "malformed pack", 1 << 20},
		"a tree that is declared huge": {func(p *packer) (plumbing.Hash, uint32) {
			p.put(plumbing.TreeObject, 1<<29, nil, strings.NewReader("x"))
			return plumbing.ZeroHash, p.count
		}, "the commit has a folder of more than 8 MiB of names", 1 << 20},
		"an object longer than declared": {func(p *packer) (plumbing.Hash, uint32) {
			p.put(plumbing.TreeObject, 10, nil, io.LimitReader(zeros{}, 1<<28))
			return plumbing.ZeroHash, p.count
		}, "malformed pack", 4 << 20},
		"objects declared to more than a gigabyte": {func(p *packer) (plumbing.Hash, uint32) {
			p.put(plumbing.BlobObject, 1<<20, nil, io.LimitReader(zeros{}, 1<<20))
			p.put(plumbing.BlobObject, 1<<30, nil, strings.NewReader("x"))
			return plumbing.ZeroHash, p.count
		}, "the commit's files are larger than 1 GiB unpacked", 4 << 20},
		"a delta that makes a huge tree": {func(p *packer) (plumbing.Hash, uint32) {
			below, at := p.object(plumbing.TreeObject, []byte(entryOf("40000", "d", plumbing.ZeroHash)))
			p.delta(at, append(append(varint(uint64(len(entryOf("40000", "d", below)))), varint(1<<40)...), copyAll(20)...))
			commit := p.commit(below)
			return commit, p.count
		}, "object is not there", 4 << 20},
		"a delta on the wrong base": {func(p *packer) (plumbing.Hash, uint32) {
			tree, at := p.object(plumbing.TreeObject, []byte(entryOf("100644", "a", plumbing.ZeroHash)))
			p.delta(at, append(varint(7), varint(7)...))
			commit := p.commit(tree)
			return commit, p.count
		}, "malformed pack: delta does not fit its base", 1 << 20},
		"a malformed tree": {func(p *packer) (plumbing.Hash, uint32) {
			tree, _ := p.object(plumbing.TreeObject, []byte("100644 a"))
			commit := p.commit(tree)
			return commit, p.count
		}, "malformed pack: malformed tree", 1 << 20},
		"a tag of itself": {func(p *packer) (plumbing.Hash, uint32) {
			tree, _ := p.object(plumbing.TreeObject, nil)
			p.commit(tree)
			tag, _ := p.object(plumbing.TagObject, []byte("object "+tree.String()+"\ntype tree\n"))
			return tag, p.count
		}, "spec.git.ref leads to a tree, not to a commit", 1 << 20},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &packer{}
			commit, count := tt.make(p)
			data := p.bytes(count)
			var err error
			used := allocated(func() { _, err = list(t, data, commit) })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %s", err, tt.want)
			}
			if used > tt.memory {
				t.Errorf("%d bytes allocated", used)
			}
		})
	}
}

func TestDeltas(t *testing.T) {
	p := &packer{}
	base := []byte("0123456789")
	_, at := p.object(plumbing.BlobObject, base)
	// A chain: each is the one before it, and a byte more.
	data := slices.Clone(base)
	var tree strings.Builder
	for i := range 100 {
		delta := append(varint(uint64(len(data))), varint(uint64(len(data)+1))...)
		delta = append(append(delta, copyAll(len(data))...), 1, byte('a'+i%26))
		at = p.delta(at, delta)
		data = append(data, byte('a'+i%26))
		tree.WriteString(entryOf("100644", fmt.Sprintf("f%03d.yaml", i), plumbing.ComputeHash(plumbing.BlobObject, data)))
	}
	root, _ := p.object(plumbing.TreeObject, []byte(tree.String()))
	commit := p.commit(root)
	w, err := list(t, p.bytes(p.count), commit)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range w.files {
		got, err := f.Read(t.Context())
		if err != nil || len(got) != 11+i {
			t.Fatalf("%s: %q, %v", f.Path, got, err)
		}
	}
}

func TestHostileNames(t *testing.T) {
	p := &packer{}
	blob, _ := p.object(plumbing.BlobObject, []byte("x"))
	sub, _ := p.object(plumbing.TreeObject, []byte(entryOf("100644", "ok.yaml", blob)))
	root, _ := p.object(plumbing.TreeObject, []byte(
		entryOf("100644", "../../etc/x.yaml", blob)+entryOf("100644", "/abs.yaml", blob)+entryOf("40000", "..", sub)+
			entryOf("100644", "a\x1b[31m.yaml", blob)+entryOf("40000", ".GIT", sub)+entryOf("100644", "\xff.yaml", blob)+
			entryOf("100644", "twice.yaml", blob)+entryOf("100644", "twice.yaml", blob)+
			entryOf("120000", "link.yaml", blob)+entryOf("160000", "module.yaml", blob)+entryOf("040000", "d", sub)))
	commit := p.commit(root)
	w, err := list(t, p.bytes(p.count), commit)
	if err != nil {
		t.Fatal(err)
	}
	var files, problems []string
	for _, f := range w.files {
		files = append(files, f.Path)
	}
	for _, p := range w.problems {
		problems = append(problems, p.File+": "+p.Message)
	}
	if !slices.Equal(files, []string{"d/ok.yaml", "twice.yaml"}) {
		t.Errorf("files = %q", files)
	}
	want := []string{
		"../../etc/x.yaml: has a slash in its name; it is not read", "/abs.yaml: has a slash in its name; it is not read",
		"..: is not a name; it is not read", "a?[31m.yaml: has control characters in its name; it is not read",
		".GIT: is named like git's own folder; it is not read", "\uFFFD.yaml: has a name that is not UTF-8; it is not read",
		"twice.yaml: is in its folder twice; it is not read",
		"link.yaml: is a symbolic link, and links are not followed; put the file itself there, or exclude it",
	}
	if !slices.Equal(problems, want) {
		t.Errorf("problems = %q", problems)
	}
}

func FuzzPack(f *testing.F) {
	p := &packer{}
	blob, at := p.object(plumbing.BlobObject, []byte("0123456789"))
	p.delta(at, append(append(varint(10), varint(5)...), copyAll(5)...))
	tree, _ := p.object(plumbing.TreeObject, []byte(entryOf("100644", "a.yaml", blob)))
	commit := p.commit(tree)
	f.Add(p.bytes(p.count))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := list(t, data, commit)
		if err != nil {
			return
		}
		for _, file := range w.files {
			_, _ = file.Read(t.Context()) // it must only not panic
		}
	})
}
