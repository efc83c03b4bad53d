package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func disks() []Fault {
	return []Fault{
		{"fill disk", func(t *Target) bool { return t.Disk != "" }, fillDisk},
		{"fill disk of etcd", func(t *Target) bool { return t.MemberDisk != "" }, fillMemberDisk},
	}
}

// fillDisk takes all space of the first server's disk, sometimes kills the server then, and gives the space back.
func fillDisk(ctx context.Context, t *Target, r *rand.Rand) error {
	filler := filepath.Join(t.Disk, "filler")
	if err := fill(filler); err != nil {
		return err
	}
	during(ctx, some(r, 3*time.Second))
	kill := r.IntN(3) == 0
	if kill {
		if err := t.Servers[0].Server.Kill(); err != nil {
			return err
		}
	}
	if err := os.Remove(filler); err != nil {
		return fmt.Errorf("give the disk back: %w", err)
	}
	if kill {
		return t.Servers[0].StartBeside(ctx)
	}
	return t.Servers[0].AwaitReady(ctx)
}

// fillMemberDisk takes all space of the first member's disk, and gives it back. A member that cannot write ends itself, and its operator
// starts it again when there is space. Sometimes it is killed before that.
func fillMemberDisk(ctx context.Context, t *Target, r *rand.Rand) error {
	filler := filepath.Join(t.MemberDisk, "filler")
	if err := fill(filler); err != nil {
		return err
	}
	during(ctx, silence(t, r))
	if r.IntN(3) == 0 {
		t.Etcd.Kill(0)
	}
	if err := os.Remove(filler); err != nil {
		return fmt.Errorf("give the disk of etcd back: %w", err)
	}
	t.Etcd.Mend(0) //nolint:contextcheck // it has the context of the test
	return nil
}

func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	for block := make([]byte, 1<<20); err == nil && len(block) > 0; {
		if _, err = f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block, err = block[:len(block)/2], nil
		}
	}
	return errors.Join(err, f.Close())
}
