//go:build !linux

package volume

import (
	"errors"
	"os"
	"syscall"
)

// errPlatform is the result of every operation on other platforms: the engine's volumes are not files of this machine there.
var errPlatform = errors.New("data can only be moved between nodes that run Linux")

func statEntry(*os.File, string) (*Entry, linked, state, error) {
	return nil, linked{}, state{}, errPlatform
}
func openEntry(*os.File, string, inode) (*os.File, error) { return nil, errPlatform }
func nextData(*os.File, int64) (int64, error)             { return 0, errPlatform }
func childAttributes() *syscall.SysProcAttr               { return &syscall.SysProcAttr{Setpgid: true} }

// SyncFileSystem exists only on Linux.
func SyncFileSystem(*os.File) error { return errPlatform }

// FreeSpace exists only on Linux.
func FreeSpace(string) (int64, error) { return 0, errPlatform }
