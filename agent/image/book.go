// Package image pulls images, records which images Cara pulled to this node, and removes those when the disk is full. The
// agent requests an image before it creates a container from it.
//
// Only images that Cara pulled, and that were not on the node before, are ever removed. An image stays while a container,
// running or not, or an assignment uses it, or if someone has given it another name. A removal is never forced.
package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// pulledImage is an image that Cara pulled to this node. Only these are ever removed.
type pulledImage struct {
	ID   string    `json:"id"`
	Refs []string  `json:"refs"` // as written in manifests
	Used time.Time `json:"used"` // when a container of it was last seen
}

// Book records the pulled images on disk. If it is lost, images stay on the disk, but no foreign image is removed.
type Book struct {
	path string

	mu     sync.Mutex
	images map[string]pulledImage
}

// NewBook returns the book in a data directory. It is empty until Load.
func NewBook(dir string) *Book {
	return &Book{path: filepath.Join(dir, "images.json"), images: map[string]pulledImage{}}
}

// Load reads the book. If it is broken, Load starts an empty one, and the images in it are never removed.
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

// sorted returns the images by last use, oldest first. mu is held.
func (b *Book) sorted() []pulledImage {
	return slices.SortedFunc(maps.Values(b.images), func(x, y pulledImage) int { return cmp.Or(x.Used.Compare(y.Used), cmp.Compare(x.ID, y.ID)) })
}

// edit changes the book in memory and on disk.
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

// add records a pull. An image that was on the node before and was not pulled by Cara is not recorded.
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

// useStep is how much newer a use must be to be written to disk.
const useStep = 10 * time.Minute

// use records which images are in use, and drops those that no longer exist.
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
