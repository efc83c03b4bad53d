package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// profile begins a profile of the processor, if one is wanted. The returned function ends it.
func (o options) profile() (end func() error, err error) {
	if o.profiles == "" || o.role == "backend" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(o.profileFile("processor"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func (o options) profileFile(what string) string {
	return filepath.Join(o.profiles, o.role+"-"+what+".pprof")
}

// heap writes what the memory holds. The file "memory" is the last one: writeHeap waits for it.
func (o options) heap() error {
	runtime.GC()
	for what, name := range map[string]string{"goroutines": "goroutine", "heap": "heap"} {
		var profile bytes.Buffer
		if err := pprof.Lookup(name).WriteTo(&profile, 0); err != nil {
			return err
		}
		if err := os.WriteFile(o.profileFile(what), profile.Bytes(), 0o600); err != nil {
			return err
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text := fmt.Sprintf("heap in use %d, heap idle %d, released %d, stacks %d, objects %d\n", m.HeapInuse, m.HeapIdle, m.HeapReleased, m.StackInuse, m.HeapObjects)
	return os.WriteFile(o.profileFile("memory"), []byte(text), 0o600)
}

// writeHeap makes a process of this program write its heap profile, and waits for it.
func (p *process) writeHeap(ctx context.Context, dir string) error {
	if p.in == nil {
		return nil
	}
	last := options{profiles: dir, role: p.name}.profileFile("memory")
	if err := os.RemoveAll(last); err != nil {
		return err
	}
	if _, err := io.WriteString(p.in, "heap\n"); err != nil {
		return err
	}
	for !exists(last) {
		if err := testcluster.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
