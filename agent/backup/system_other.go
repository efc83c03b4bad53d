//go:build !linux

package backup

import (
	"errors"
	"os"
	"syscall"
)

// memory is a file in memory, which only Linux has.
type memory struct{ file *os.File }

func newMemory(string, []byte) (*memory, error) {
	return nil, errors.New("backups need Linux on the node: only there can a password be passed to restic without a file on disk")
}

func (*memory) take(int64) string { return "" }

func (*memory) close() {}

func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
