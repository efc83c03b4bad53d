package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFileSystem writes all dirty data of the file system of an open file to disk.
func syncFileSystem(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
