package git

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// spoolMemory is how much of a pack is kept in memory. A larger pack goes to an unlinked file.
const spoolMemory = 8 << 20

// spool stores the bytes of a pack, to read them again out of order.
type spool struct {
	mem  []byte
	file *os.File
	size int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && len(s.mem)+len(p) > spoolMemory {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	if s.file != nil {
		n, err := s.file.Write(p)
		s.size += int64(n)
		if err != nil {
			return n, fmt.Errorf("keep pack: %w", err)
		}
		return n, nil
	}
	s.mem = append(s.mem, p...)
	s.size += int64(len(p))
	return len(p), nil
}

// spill moves the content to a file and unlinks it immediately, so that nothing is left behind however the process ends.
func (s *spool) spill() error {
	f, err := os.CreateTemp("", "pack-*")
	if err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // the other error says more
		return fmt.Errorf("keep pack: %w", err)
	}
	if _, err := f.Write(s.mem); err != nil {
		_ = f.Close() // the other error says more
		return fmt.Errorf("keep pack: %w", err)
	}
	s.file, s.mem = f, nil
	return nil
}

func (s *spool) reader() io.ReadSeeker {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	return bytes.NewReader(s.mem)
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // the file is unlinked and not read again
	}
	s.mem = nil
}
