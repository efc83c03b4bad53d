package backup

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// memory is a file in memory. restic gets it as an open file, and ssh opens that of restic.
type memory struct{ file *os.File }

// newMemory returns a memory file with this content, which only the agent's user can read.
func newMemory(name string, content []byte) (*memory, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	m := &memory{os.NewFile(uintptr(fd), name)}
	if err := m.file.Chmod(0o600); err != nil {
		return nil, fmt.Errorf("protect a file in memory: %w", err)
	}
	if _, err := m.file.Write(content); err != nil {
		return nil, fmt.Errorf("write a file in memory: %w", err)
	}
	return m, nil
}

// take returns the last bytes that programs have written to the file, and empties it. The programs must append.
func (m *memory) take(limit int64) string {
	info, err := m.file.Stat()
	if err != nil {
		return ""
	}
	data := make([]byte, min(info.Size(), limit))
	n, _ := m.file.ReadAt(data, info.Size()-int64(len(data))) // a memory file can be read
	_ = m.file.Truncate(0)
	return string(data[:n])
}

// close ends the file. Nobody can open it afterwards.
func (m *memory) close() {
	_ = m.file.Close() // memory files have nothing to lose
}

// childAttributes keep a terminal's interrupt for the agent, and let the kernel interrupt restic when the agent dies, so that the
// next agent finds no backup under way. An interrupted restic removes its lock.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
}
