package testcluster

import (
	"os"
	"runtime"
	"testing"
)

// TestUsageOf: the figures of this process are possible, and grow with what it uses.
func TestUsageOf(t *testing.T) {
	before, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if before.Resident < 1<<20 || before.Peak < before.Resident || before.Threads < 1 || before.Processor <= 0 {
		t.Errorf("this process uses %+v", before)
	}
	const size = 64 << 20
	block := make([]byte, size)
	for i := range block {
		block[i] = 1
	}
	after, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.Resident < size/2 || after.Peak < size/2 || after.Processor <= before.Processor {
		t.Errorf("after %d MiB and a loop it is %+v, before %+v", size>>20, after, before)
	}
	runtime.KeepAlive(block)
	if _, err := UsageOf(1 << 30); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}
