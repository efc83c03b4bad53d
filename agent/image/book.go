// Package image pulls images, remembers which of them Cara brought to this node, and removes those again when the disk is full. On the
// straight line it stands beside the engine: the agent asks for an image before it makes a container of it.
//
// What holds: only images that Cara pulled, and that were not on the node before, are ever removed. An image stays while a container, running or
// not, or an assignment uses it, or while somebody has given it another name. A removal is never forced.
package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// pulledImage is an image that Cara brought to this node: only these are ever removed.
type pulledImage struct {
	ID   string    `json:"id"`
	Refs []string  `json:"refs"` // as manifests spell them
	Used time.Time `json:"used"` // when a container of it was last seen
}

// Book remembers on disk what was pulled. Losing it costs disk, never an image that somebody else needs.
type Book struct {
	path string

	mu     sync.Mutex
	images map[string]pulledImage
}

// NewBook returns the book that a data directory has; empty until Load.
func NewBook(dir string) *Book {
	return &Book{path: filepath.Join(dir, "images.json"), images: map[string]pulledImage{}}
}

// Load reads the book. One that is broken is begun anew: what was in it is then nobody's to remove.
func (b *Book) Load() error {
	data, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the book of images: %w", err)
	}
	var list []pulledImage
	if err := json.Unmarshal(data, &list); err != nil {
		if err := os.Rename(b.path, b.path+".broken"); err != nil {
			return fmt.Errorf("set a broken book of images aside: %w", err)
		}
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, img := range list {
		b.images[img.ID] = img
	}
	return nil
}

func (b *Book) list() []pulledImage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sorted()
}

// sorted is by use, the oldest first; mu is held.
func (b *Book) sorted() []pulledImage {
	out := make([]pulledImage, 0, len(b.images))
	for _, img := range b.images {
		out = append(out, img)
	}
	slices.SortFunc(out, func(x, y pulledImage) int { return cmp.Or(x.Used.Compare(y.Used), cmp.Compare(x.ID, y.ID)) })
	return out
}

// edit changes the book, on disk too.
func (b *Book) edit(change func(images map[string]pulledImage) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !change(b.images) {
		return nil
	}
	data, err := json.Marshal(b.sorted())
	if err == nil {
		err = renameio.WriteFile(b.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the book of images: %w", err)
	}
	return nil
}

// add notes a pull. One of an image that was on the node before, and not by us, is not ours.
func (b *Book) add(id, ref string, wasThere bool, now time.Time) error {
	return b.edit(func(images map[string]pulledImage) bool {
		img, ours := images[id]
		if wasThere && !ours {
			return false
		}
		img.ID, img.Used = id, now
		if !slices.Contains(img.Refs, ref) {
			img.Refs = append(slices.Clone(img.Refs), ref)
		}
		images[id] = img
		return true
	})
}

// useStep is how much later a use must be to be worth writing down.
const useStep = 10 * time.Minute

// use notes which images are in use, and forgets those that are gone.
func (b *Book) use(inUse, stored map[string]bool, now time.Time) error {
	return b.edit(func(images map[string]pulledImage) (changed bool) {
		for id, img := range images {
			switch {
			case !stored[id]:
				delete(images, id)
				changed = true
			case inUse[id] && now.Sub(img.Used) >= useStep:
				img.Used = now
				images[id] = img
				changed = true
			}
		}
		return changed
	})
}
