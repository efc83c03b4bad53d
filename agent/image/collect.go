package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/distribution/reference"

	"github.com/caravanserai/cara/agent/engine"
)

// Collector removes unused images while the disk is too full.
type Collector struct {
	Engine engine.Engine
	Book   *Book
	Log    *slog.Logger
	// Every is the interval between checks of the disk. If more than Above percent are used, images are removed until at most
	// To percent are used.
	Every     time.Duration
	Above, To float64
	// Disk returns how much of the disk with the images is used, in bytes. total is 0 if unknown.
	Disk func() (used, total uint64)
	// Assigned returns the images of all projects of this node, running or not.
	Assigned func() []string
	// Tell records an event about removed images.
	Tell func(ctx context.Context, message string)
}

// Run checks the disk until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ticker := time.NewTicker(c.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := c.collect(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.Log.Warn("images are not collected", "error", err)
		}
	}
}

func (c *Collector) collect(ctx context.Context, now time.Time) error {
	used, total := c.Disk()
	if total == 0 || len(c.Book.list()) == 0 {
		return nil
	}
	tooFull := excess(used, total, c.Above) > 0
	removed, size := 0, int64(0)
	var failed error
	for {
		stored, inUse, err := c.usedImages(ctx, now)
		if err != nil || !tooFull {
			return err
		}
		assigned := map[string]bool{}
		for _, ref := range c.Assigned() {
			assigned[fullName(ref)] = true
		}
		gone := 0
		for _, img := range collectable(excess(used, total, c.To), c.Book.list(), stored, inUse, assigned) {
			if err := c.remove(ctx, img); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			gone, size = gone+1, size+img.size
		}
		removed += gone
		if used, total = c.Disk(); gone == 0 || total == 0 || excess(used, total, c.To) <= 0 {
			break
		}
	}
	if removed > 0 {
		c.Tell(ctx, fmt.Sprintf("removed %d unused images of up to %.1f MiB: more than %g %% of the disk was used",
			removed, float64(size)/(1<<20), c.Above))
	}
	return failed
}

// excess returns how many bytes more than percent of a disk are used.
func excess(used, total uint64, percent float64) int64 {
	return int64(used) - int64(float64(total)*percent/100)
}

// usedImages returns the stored images and which of them any container uses. It also updates the book.
func (c *Collector) usedImages(ctx context.Context, now time.Time) (stored []engine.StoredImage, inUse map[string]bool, err error) {
	stored, err = c.Engine.ListImages(ctx)
	if err != nil {
		return nil, nil, err
	}
	containers, err := c.Engine.ListContainers(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	there := map[string]bool{}
	for _, img := range stored {
		there[img.ID] = true
	}
	inUse = map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageID] = true
	}
	return stored, inUse, c.Book.use(inUse, there, now)
}

// remove removes all names of an image, and thereby the image. It never forces that: an image that is in use by now stays.
func (c *Collector) remove(ctx context.Context, img removal) error {
	for _, name := range img.names {
		if err := c.Engine.RemoveImage(ctx, name); err != nil {
			return err
		}
	}
	c.Log.Info("removed an unused image", "image", img.names[0], "id", img.id)
	return nil
}

// removal is one image to remove, with all its names.
type removal struct {
	id    string
	names []string
	size  int64
}

// collectable returns the images to remove to free need bytes: images that Cara pulled, that are unused, and that have no
// other names. Those unused for longest come first, which is the order of pulled.
func collectable(need int64, pulled []pulledImage, stored []engine.StoredImage, inUse, assigned map[string]bool) []removal {
	var out []removal
	for _, img := range pulled {
		if need <= 0 {
			break
		}
		i := slices.IndexFunc(stored, func(s engine.StoredImage) bool { return s.ID == img.ID })
		if i < 0 || inUse[img.ID] {
			continue
		}
		ours := map[string]bool{}
		wanted := false
		for _, ref := range img.Refs {
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
			names = []string{img.ID}
		}
		out = append(out, removal{id: img.ID, names: names, size: stored[i].Size})
		need -= stored[i].Size
	}
	return out
}

// fullName returns the canonical form of a reference.
func fullName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.TagNameOnly(named).String()
}
