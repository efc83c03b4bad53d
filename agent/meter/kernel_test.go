package meter

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const container = "4f1c9d2e8a7b"

// tree writes files below a directory and returns the kernel that has them.
func tree(t *testing.T, files map[string]string) kernel {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return kernelAt(root)
}

const (
	mounts1 = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
`
	mounts2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	hybrid  = mounts1 + "40 31 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	netDev  = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 5000000     100    0    0    0     0          0         0  5000000     100    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0
  eth1:      11       1    0    0    0     0          0         0       22       1    0    0    0     0       0          0
`
	v1 = "sys/fs/cgroup/"
	v2 = "sys/fs/cgroup/system.slice/docker-" + container + ".scope/"
)

// files returns the files of a container with process 42, and more.
func files(mountinfo, cgroup string, more ...string) map[string]string {
	out := map[string]string{"proc/self/mountinfo": mountinfo, "proc/42/cgroup": cgroup, "proc/42/net/dev": netDev}
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func TestKernel(t *testing.T) {
	groups1 := "12:memory:/docker/" + container + "\n3:cpu,cpuacct:/docker/" + container + "\n0::/docker/" + container + "\n"
	files1 := []string{
		v1 + "cpu,cpuacct/docker/" + container + "/cpuacct.usage", "3000000000\n",
		v1 + "memory/docker/" + container + "/memory.usage_in_bytes", "1000\n",
		v1 + "memory/docker/" + container + "/memory.stat", "inactive_file 1\ntotal_inactive_file 300\n",
	}
	files2 := []string{
		v2 + "cpu.stat", "usage_usec 3000000\nuser_usec 1\n",
		v2 + "memory.current", "1000\n",
		v2 + "memory.stat", "anon 5\ninactive_file 300\n",
	}
	want := reading{cpu: 3 * time.Second, memory: 700, received: 1011, sent: 2022}
	for name, c := range map[string]struct {
		files map[string]string
		fails bool
	}{
		"version 1":                      {files: files(mounts1, groups1, files1...)},
		"version 2":                      {files: files(mounts2, "0::/system.slice/docker-"+container+".scope\n", files2...)},
		"both, version 1 has the limits": {files: files(hybrid, groups1, files1...)},
		"another process has the id now": {files: files(mounts2, "0::/other\n", "sys/fs/cgroup/other/cpu.stat", "usage_usec 3\n", "sys/fs/cgroup/other/memory.current", "1\n", "sys/fs/cgroup/other/memory.stat", ""), fails: true},
		"another namespace":              {files: files(mounts2, "0::/../../docker/"+container+"\n", files2...), fails: true},
		"no such process":                {files: map[string]string{"proc/self/mountinfo": mounts2}, fails: true},
		"no control groups":              {files: files("", groups1, files1...), fails: true},
		"memory is not accounted":        {files: files(mounts1, "3:cpu,cpuacct:/docker/"+container+"\n", files1...), fails: true},
		"a file of nonsense":             {files: files(mounts2, "0::/system.slice/docker-"+container+".scope\n", append(files2, v2+"memory.current", "max")...), fails: true},
		"it has just stopped":            {files: files(mounts2, "0::/system.slice/docker-"+container+".scope\n"), fails: true},
	} {
		got, err := tree(t, c.files).read(42, container, time.Time{})
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if !c.fails && got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if _, err := tree(t, files(mounts1, groups1, files1...)).read(0, container, time.Time{}); !errors.Is(err, errElsewhere) {
		t.Errorf("of a container without a process: %v, want %v", err, errElsewhere)
	}
}

// TestCacheIsNeverMoreThanTheMemory: the two files are not read at the same instant.
func TestCacheIsNeverMoreThanTheMemory(t *testing.T) {
	k := tree(t, files(mounts2, "0::/system.slice/docker-"+container+".scope\n",
		v2+"cpu.stat", "usage_usec 1\n", v2+"memory.current", "100\n", v2+"memory.stat", "inactive_file 300\n"))
	if r, err := k.read(42, container, time.Time{}); err != nil || r.memory != 0 {
		t.Errorf("got %d bytes and %v, want 0", r.memory, err)
	}
}
