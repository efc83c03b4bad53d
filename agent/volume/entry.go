package volume

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Entry is one file, directory or other object in a volume. Byte slices are names, which need not be text.
type Entry struct {
	// Path in the volume; empty for the volume itself.
	Path []byte `json:"p"`
	// Mode has the type and the permissions, as in stat(2).
	Mode uint32 `json:"m"`
	UID  uint32 `json:"u"`
	GID  uint32 `json:"g"`
	// Size in bytes, of regular files.
	Size int64 `json:"s,omitempty"`
	// Time of the last modification, in seconds and nanoseconds.
	Sec  int64 `json:"t"`
	Nsec int64 `json:"n,omitempty"`
	// Target of a symbolic link.
	Target []byte `json:"l,omitempty"`
	// Device of a device node.
	Device uint64 `json:"d,omitempty"`
	// First is the path of the first entry with the same inode, if this is another name of it (a hard link).
	First []byte `json:"f,omitempty"`
	// Attributes is a hash of the extended attributes, which include ACLs. Empty if there are none.
	Attributes []byte `json:"x,omitempty"`
	// Sum is a hash of the content of a regular file. Empty for further names of a file.
	Sum []byte `json:"c,omitempty"`
}

// regular reports whether the entry is a regular file.
func (e *Entry) regular() bool { return e.Mode&syscall.S_IFMT == syscall.S_IFREG }

// directory reports whether the entry is a directory.
func (e *Entry) directory() bool { return e.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// comparePaths orders paths as a walk returns them: a directory before its entries, and these by name.
func comparePaths(a, b []byte) int {
	for len(a) > 0 && len(b) > 0 {
		x, restA, _ := bytes.Cut(a, []byte("/"))
		y, restB, _ := bytes.Cut(b, []byte("/"))
		if c := bytes.Compare(x, y); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return len(a) - len(b)
}

// differs returns how the copy of an entry differs from the original, or an empty string.
func differs(original, copied *Entry) string {
	switch {
	case original.Mode&syscall.S_IFMT != copied.Mode&syscall.S_IFMT:
		return "its type is " + typeName(copied.Mode) + " instead of " + typeName(original.Mode)
	case original.Mode != copied.Mode:
		return fmt.Sprintf("its mode is %04o instead of %04o", copied.Mode&^syscall.S_IFMT, original.Mode&^syscall.S_IFMT)
	case original.UID != copied.UID || original.GID != copied.GID:
		return fmt.Sprintf("its owner is %d:%d instead of %d:%d", copied.UID, copied.GID, original.UID, original.GID)
	case !bytes.Equal(original.Target, copied.Target):
		return fmt.Sprintf("it links to %q instead of %q", copied.Target, original.Target)
	case original.Device != copied.Device:
		return "its device number is another one"
	case !bytes.Equal(original.First, copied.First):
		return "its hard links are others"
	case original.Size != copied.Size:
		return fmt.Sprintf("its size is %d instead of %d bytes", copied.Size, original.Size)
	case !bytes.Equal(original.Sum, copied.Sum):
		return "its content differs"
	case original.Sec != copied.Sec || original.Nsec != copied.Nsec && copied.Nsec != 0: // some file systems store only seconds
		return "its modification time is " + modified(copied) + " instead of " + modified(original)
	case !bytes.Equal(original.Attributes, copied.Attributes):
		return "its extended attributes or ACLs differ"
	}
	return ""
}

func modified(e *Entry) string { return time.Unix(e.Sec, e.Nsec).UTC().Format(time.RFC3339Nano) }

func typeName(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return "a file"
	case syscall.S_IFDIR:
		return "a directory"
	case syscall.S_IFLNK:
		return "a symbolic link"
	case syscall.S_IFIFO:
		return "a FIFO"
	case syscall.S_IFSOCK:
		return "a socket"
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return "a device"
	}
	return "unknown"
}

// Difference is an entry that is not the same in both copies.
type Difference struct {
	Path []byte
	// Why is empty for an entry that only one side has: see Missing.
	Why string
	// Missing is true if the copy does not have the entry, and Extra if only the copy has it.
	Missing, Extra bool
	// Directory is true if the copy has a directory of this name.
	Directory bool
}

func (d Difference) String() string {
	name := fmt.Sprintf("%q", d.Path)
	switch {
	case len(d.Path) == 0:
		name = "the volume's root directory"
	case d.Missing:
		return name + " is missing"
	case d.Extra:
		return name + " is superfluous"
	}
	return name + ": " + d.Why
}

// Comparison is the result of comparing a copy with the original.
type Comparison struct {
	// Entries and Bytes of the original.
	Entries, Bytes int64
	// Differences are the first differences, and Total is the number of all.
	Differences []Difference
	Total       int64
}

const (
	// maxDifferences is the maximum number of differences that a comparison keeps. They are repaired one by one.
	maxDifferences = 1000
	// maxNamed is the maximum number of differences in a message.
	maxNamed = 3
)

func (c *Comparison) add(d Difference) {
	c.Total++
	if len(c.Differences) < maxDifferences {
		c.Differences = append(c.Differences, d)
	}
}

// Equal reports whether both sides are the same.
func (c *Comparison) Equal() bool { return c.Total == 0 }

// String names the first differences.
func (c *Comparison) String() string {
	var named []string
	for _, d := range c.Differences[:min(len(c.Differences), maxNamed)] {
		named = append(named, d.String())
	}
	if more := c.Total - int64(len(named)); more > 0 {
		named = append(named, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(named, "; ")
}

// entries returns the next entry of a walk, or nil at its end.
type entries func() (*Entry, error)

// compare compares two walks.
func compare(original, copied entries) (*Comparison, error) {
	out := &Comparison{}
	a, err := original()
	if err != nil {
		return nil, err
	}
	b, err := copied()
	for err == nil && (a != nil || b != nil) {
		order := 0
		switch {
		case a == nil:
			order = 1
		case b == nil:
			order = -1
		default:
			order = comparePaths(a.Path, b.Path)
		}
		out.judge(a, b, order)
		if order <= 0 {
			if a, err = original(); err != nil {
				break
			}
		}
		if order >= 0 {
			b, err = copied()
		}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// judge adds what one step of a comparison found. order is negative if only the original has the entry, and positive if only
// the copy has it.
func (c *Comparison) judge(a, b *Entry, order int) {
	if order <= 0 {
		c.Entries++
		if len(a.First) == 0 {
			c.Bytes += a.Size
		}
	}
	switch {
	case order < 0:
		c.add(Difference{Path: a.Path, Missing: true})
	case order > 0:
		c.add(Difference{Path: b.Path, Extra: true, Directory: b.directory()})
	default:
		if why := differs(a, b); why != "" {
			c.add(Difference{Path: a.Path, Why: why, Directory: b.directory()})
		}
	}
}
