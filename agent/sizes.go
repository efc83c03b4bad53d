package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
)

// size is the last measurement of a volume.
type size struct {
	bytes  int64
	at     time.Time
	known  bool   // false if the volume cannot be read from where the agent runs
	device uint64 // that has the data
}

// measure measures the space in use of each volume, one after the other, and each at most once per Config.MeasureEvery.
func (i *inventory) measure(ctx context.Context) error {
	for {
		v, wait := i.nextSize(time.Now())
		if v.Name == "" {
			select {
			case <-ctx.Done():
				return nil
			case <-i.due:
			case <-time.After(wait):
			}
			continue
		}
		s, err := sizeOf(ctx, v.Mountpoint)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			i.log.Debug("the size of a volume is not known", "volume", v.Labels[api.LabelVolume], "error", err)
		}
		s.at = time.Now()
		i.mu.Lock()
		i.sizes[v.Labels[api.LabelVolumeUID]] = s
		if s.known {
			i.version++ // the next heartbeat has it; none is sent early
		}
		i.mu.Unlock()
	}
}

// nextSize returns the volume whose measurement is due for longest, or a zero one and when the next is due. It forgets the
// sizes of volumes that are gone.
func (i *inventory) nextSize(now time.Time) (engine.Volume, time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	sizes := make(map[string]size, len(i.volumes))
	wait, oldest := i.cfg.MeasureEvery, engine.Volume{}
	for _, v := range i.volumes {
		s, measured := i.sizes[v.Labels[api.LabelVolumeUID]]
		if measured {
			sizes[v.Labels[api.LabelVolumeUID]] = s
		}
		left := s.at.Add(i.cfg.MeasureEvery).Sub(now)
		if measured && left > 0 {
			wait = min(wait, left)
		} else if oldest.Name == "" || s.at.Before(i.sizes[oldest.Labels[api.LabelVolumeUID]].at) {
			oldest = v
		}
	}
	i.sizes = sizes
	return oldest, wait
}

// dirBatch is how many entries of a directory are read at a time.
const dirBatch = 1000

// sizeOf returns the space that a directory occupies: the blocks of all files in it, hard links once, without other file
// systems that are mounted in it. It spends at most half of the time working, and never leaves the directory, whatever a
// container does in it meanwhile. If anything cannot be read, the size is not known.
func sizeOf(ctx context.Context, dir string) (size, error) {
	if dir == "" {
		return size{}, errors.New("the engine does not say where its data is")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return size{}, err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return size{}, err
	}
	w := &sizeWalk{root: root, links: map[uint64]bool{}, dirs: []string{"."}}
	w.device = uint64(info.Sys().(*syscall.Stat_t).Dev) //nolint:unconvert // its type differs between platforms
	w.add(info)
	for len(w.dirs) > 0 {
		begun, last := time.Now(), len(w.dirs)-1
		next := w.dirs[last]
		w.dirs = w.dirs[:last]
		if err := w.read(ctx, next); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return size{}, err
		}
		select {
		case <-ctx.Done():
			return size{}, ctx.Err()
		case <-time.After(time.Since(begun)):
		}
	}
	return size{bytes: w.bytes, known: true, device: w.device}, nil
}

// sizeWalk adds up the sizes of files.
type sizeWalk struct {
	root   *os.Root
	device uint64
	links  map[uint64]bool // inodes of files with several names
	dirs   []string        // still to read
	bytes  int64
}

// read adds the entries of one directory. Entries that disappear meanwhile do not count.
func (w *sizeWalk) read(ctx context.Context, dir string) error {
	f, err := w.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil {
		names, err := f.Readdirnames(dirBatch)
		for _, name := range names {
			entry := path.Join(dir, name)
			info, err := w.root.Lstat(entry)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if w.add(info) && info.IsDir() {
				w.dirs = append(w.dirs, entry)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// add adds one file, and reports whether it is on the volume's file system.
func (w *sizeWalk) add(info fs.FileInfo) bool {
	st := info.Sys().(*syscall.Stat_t)
	if uint64(st.Dev) != w.device { //nolint:unconvert // its type differs between platforms
		return false
	}
	if !info.IsDir() && st.Nlink > 1 {
		if w.links[st.Ino] {
			return true
		}
		w.links[st.Ino] = true
	}
	w.bytes += st.Blocks * 512
	return true
}

// bytes returns the known sizes by project and name.
func (i *inventory) bytes() map[[2]string]int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[[2]string]int64{}
	for _, v := range i.volumes {
		if s := i.sizes[v.Labels[api.LabelVolumeUID]]; s.known {
			project, name := step.SplitVolume(v)
			out[[2]string{project, name}] += s.bytes
		}
	}
	return out
}

// maxLargest is how many volumes the condition of a full disk names.
const maxLargest = 3

// largest names the largest volumes on the disk of a directory, as the end of a message. It is empty if none is known.
func (i *inventory) largest(root string) string {
	var st syscall.Stat_t
	if syscall.Stat(root, &st) != nil {
		return ""
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var on []engine.Volume
	bytes := func(v engine.Volume) int64 { return i.sizes[v.Labels[api.LabelVolumeUID]].bytes }
	for _, v := range i.volumes {
		if s := i.sizes[v.Labels[api.LabelVolumeUID]]; s.known && s.device == uint64(st.Dev) { //nolint:unconvert // its type differs between platforms
			on = append(on, v)
		}
	}
	slices.SortStableFunc(on, func(x, y engine.Volume) int { return cmp.Compare(bytes(y), bytes(x)) })
	var said []string
	for _, v := range on[:min(len(on), maxLargest)] {
		project, name := step.SplitVolume(v)
		said = append(said, fmt.Sprintf("%s (%s)", api.VolumeName(project, name), sizeText(bytes(v))))
	}
	if len(said) == 0 {
		return ""
	}
	return "; the largest volumes on it: " + strings.Join(said, ", ")
}

// sizeText rounds, so that small changes of a volume do not change a condition.
func sizeText(bytes int64) string {
	const mib, gib = 1 << 20, 1 << 30
	if bytes < gib {
		return fmt.Sprintf("%.0f MiB", float64(bytes)/mib)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/gib)
}
