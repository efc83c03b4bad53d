package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/renameio/v2"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// pulledImage is an image that Cara brought to this node: only these are ever removed.
type pulledImage struct {
	ID   string    `json:"id"`
	Refs []string  `json:"refs"` // as manifests spell them
	Used time.Time `json:"used"` // when a container of it was last seen
}

// imageBook remembers on disk what was pulled. Losing it costs disk, never an image that somebody else needs.
type imageBook struct {
	path string

	mu     sync.Mutex
	images map[string]pulledImage
}

func newImageBook(dir string) *imageBook {
	return &imageBook{path: filepath.Join(dir, "images.json"), images: map[string]pulledImage{}}
}

// load reads the book. One that is broken is begun anew: what was in it is then nobody's to remove.
func (b *imageBook) load() error {
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
	for _, image := range list {
		b.images[image.ID] = image
	}
	return nil
}

func (b *imageBook) list() []pulledImage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sorted()
}

// sorted is by use, the oldest first; mu is held.
func (b *imageBook) sorted() []pulledImage {
	out := make([]pulledImage, 0, len(b.images))
	for _, image := range b.images {
		out = append(out, image)
	}
	slices.SortFunc(out, func(x, y pulledImage) int { return cmp.Or(x.Used.Compare(y.Used), cmp.Compare(x.ID, y.ID)) })
	return out
}

// edit changes the book, on disk too.
func (b *imageBook) edit(change func(images map[string]pulledImage) bool) error {
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
func (b *imageBook) add(id, ref string, wasThere bool, now time.Time) error {
	return b.edit(func(images map[string]pulledImage) bool {
		image, ours := images[id]
		if wasThere && !ours {
			return false
		}
		image.ID, image.Used = id, now
		if !slices.Contains(image.Refs, ref) {
			image.Refs = append(slices.Clone(image.Refs), ref)
		}
		images[id] = image
		return true
	})
}

// useStep is how much later a use must be to be worth writing down.
const useStep = 10 * time.Minute

// use notes which images are in use, and forgets those that are gone.
func (b *imageBook) use(inUse, stored map[string]bool, now time.Time) error {
	return b.edit(func(images map[string]pulledImage) (changed bool) {
		for id, image := range images {
			switch {
			case !stored[id]:
				delete(images, id)
				changed = true
			case inUse[id] && now.Sub(image.Used) >= useStep:
				image.Used = now
				images[id] = image
				changed = true
			}
		}
		return changed
	})
}

// recordedPulls writes into the book what is pulled.
type recordedPulls struct {
	engine.Images
	book *imageBook
	log  *slog.Logger
	*counts
}

// PullImage looks what is there first: a pull that brings nothing new makes nothing ours.
func (r recordedPulls) PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(engine.Progress)) (engine.Image, error) {
	before, err := r.ListImages(ctx)
	if err != nil {
		return engine.Image{}, err
	}
	image, err := r.Images.PullImage(ctx, ref, auth, progress)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			r.pullsFailed.Add(1)
		}
		return image, err
	}
	r.pulled.Add(1)
	wasThere := slices.ContainsFunc(before, func(s engine.StoredImage) bool { return s.ID == image.ID })
	if err := r.book.add(image.ID, ref, wasThere, time.Now()); err != nil {
		r.log.Warn("a pulled image is not in the book: it will never be collected", "image", ref, "error", err)
	}
	return image, nil
}

// removal is one image to take away, by all the names it has.
type removal struct {
	id    string
	names []string
	size  int64
}

// collectable decides which images go: of those that Cara pulled, and that nobody uses or has given a name of their
// own, the one unused for longest first, until enough of the disk would be free. pulled comes in that order.
func collectable(l Limits, disk Usage, pulled []pulledImage, stored []engine.StoredImage, inUse, assigned map[string]bool) []removal {
	need := int64(disk.Used) - int64(float64(disk.Total)*l.CollectTo/100)
	var out []removal
	for _, image := range pulled {
		if need <= 0 {
			break
		}
		i := slices.IndexFunc(stored, func(s engine.StoredImage) bool { return s.ID == image.ID })
		if i < 0 || inUse[image.ID] {
			continue
		}
		ours := map[string]bool{}
		wanted := false
		for _, ref := range image.Refs {
			ours[fullName(ref)] = true
			wanted = wanted || assigned[fullName(ref)]
		}
		for _, tag := range stored[i].Tags {
			wanted = wanted || !ours[fullName(tag)] || assigned[fullName(tag)]
		}
		if wanted {
			continue
		}
		names := stored[i].Tags
		if len(names) == 0 {
			names = []string{image.ID}
		}
		out = append(out, removal{id: image.ID, names: names, size: stored[i].Size})
		need -= stored[i].Size
	}
	return out
}

// fullName is the one spelling of a reference that may be written in several ways.
func fullName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.TagNameOnly(named).String()
}
