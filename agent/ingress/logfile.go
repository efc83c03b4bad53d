package ingress

import (
	"cmp"
	"errors"
	"fmt"
	"os"
)

// LogFile is an access log on disk that never uses more than twice Max. A full file is renamed to Path.1, replacing an older
// one, and a new file is started. It is not safe for concurrent use.
type LogFile struct {
	Path string
	// Max is the maximum size of one file, in bytes. The default is 64 MiB.
	Max int64

	file *os.File // nil if not open
	size int64
}

// Open creates the file, or continues an existing one.
func (l *LogFile) Open() error {
	f, err := os.OpenFile(l.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open access log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open access log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends. It starts a new file if the current one is full or was moved.
func (l *LogFile) Write(p []byte) (int, error) {
	if l.file != nil && l.moved() {
		if err := l.Close(); err != nil {
			return 0, err
		}
	}
	if l.file != nil && l.size > 0 && l.size+int64(len(p)) > cmp.Or(l.Max, 64<<20) {
		if err := errors.Join(l.Close(), os.Rename(l.Path, l.Path+".1")); err != nil {
			return 0, fmt.Errorf("turn access log: %w", err)
		}
	}
	if l.file == nil {
		if err := l.Open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// moved reports whether the open file is no longer at its path.
func (l *LogFile) moved() bool {
	mine, err := l.file.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(l.Path)
	return err != nil || !os.SameFile(mine, there)
}

// Close closes the file. A later Write opens it again.
func (l *LogFile) Close() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close access log: %w", err)
	}
	return nil
}
