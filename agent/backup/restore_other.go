//go:build !linux

package backup

import "os"

// syncFileSystem does not exist on other platforms. open fails there before anything is restored.
func syncFileSystem(f *os.File) error { return f.Sync() }
