package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// errElsewhere means that the kernel of this machine does not show the container under that process id: the engine runs
// elsewhere, the container has stopped, or this process may not look.
var errElsewhere = errors.New("the kernel of this machine does not show the container")

// kernel reads what containers use from the files of Linux.
type kernel struct {
	root   string // "/", or a directory of a test
	mounts mounts
}

// mounts are where the control groups are, by controller of version 1; "" is version 2.
type mounts map[string]string

// kernelAt returns the kernel whose files are below root.
func kernelAt(root string) kernel {
	info, _ := os.ReadFile(filepath.Join(root, "proc/self/mountinfo")) // without it, nothing is found
	return kernel{root: root, mounts: parseMounts(info)}
}

// parseMounts reads /proc/self/mountinfo. See proc_pid_mountinfo(5).
func parseMounts(info []byte) mounts {
	out := mounts{}
	for line := range bytes.Lines(info) {
		left, right, ok := strings.Cut(string(line), " - ")
		at, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(at) < 5 || len(kind) < 3 {
			continue
		}
		controllers := []string{""}
		switch kind[0] {
		case "cgroup":
			controllers = strings.Split(kind[2], ",")
		case "cgroup2":
		default:
			continue
		}
		for _, c := range controllers {
			if _, known := out[c]; !known {
				out[c] = at[4]
			}
		}
	}
	return out
}

// groups are the directories of a container's control groups.
type groups struct {
	cpu, memory string
	unified     bool // version 2: cpu and memory are the same directory
}

// groupsOf finds the control groups of a process that must be of a container. content is the process's /proc/PID/cgroup. Version 1
// counts if it has both controllers, because version 2 is then mounted without them.
func (m mounts) groupsOf(content []byte, container string) (groups, bool) {
	found := map[string]string{}
	for line := range bytes.Lines(content) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3) // number:controllers:path
		if len(parts) != 3 || !strings.Contains(parts[2], container) {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			if at, mounted := m[controller]; mounted {
				found[controller] = filepath.Join(at, parts[2])
			}
		}
	}
	if g := (groups{cpu: found["cpuacct"], memory: found["memory"]}); g.cpu != "" && g.memory != "" {
		return g, true
	}
	return groups{cpu: found[""], memory: found[""], unified: true}, found[""] != ""
}

// read returns what a container uses whose main process is pid.
func (k kernel) read(pid int, container string, now time.Time) (reading, error) {
	r := reading{at: now}
	if pid <= 0 || container == "" {
		return r, errElsewhere
	}
	proc := filepath.Join(k.root, "proc", strconv.Itoa(pid))
	content, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return r, errElsewhere
	}
	g, ok := k.mounts.groupsOf(content, container)
	if !ok {
		return r, errElsewhere
	}
	g.cpu, g.memory = filepath.Join(k.root, g.cpu), filepath.Join(k.root, g.memory)
	if g.unified {
		err = r.version2(g)
	} else {
		err = r.version1(g)
	}
	if err != nil {
		return r, err
	}
	dev, err := os.ReadFile(filepath.Join(proc, "net/dev"))
	r.received, r.sent = traffic(dev)
	return r, err
}

func (r *reading) version2(g groups) error {
	cpu, err := field(filepath.Join(g.cpu, "cpu.stat"), "usage_usec")
	if err != nil {
		return err
	}
	r.cpu = time.Duration(cpu) * time.Microsecond
	return r.readMemory(g, "memory.current", "inactive_file")
}

func (r *reading) version1(g groups) error {
	cpu, err := number(filepath.Join(g.cpu, "cpuacct.usage"))
	if err != nil {
		return err
	}
	r.cpu = time.Duration(cpu)
	return r.readMemory(g, "memory.usage_in_bytes", "total_inactive_file")
}

// readMemory reads the memory in use, without the part of the cache that the kernel frees first.
func (r *reading) readMemory(g groups, usage, inactive string) error {
	used, err := number(filepath.Join(g.memory, usage))
	if err != nil {
		return err
	}
	cache, err := field(filepath.Join(g.memory, "memory.stat"), inactive)
	r.memory = used - min(cache, used)
	return err
}

// number reads a file with one number.
func number(file string) (int64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return n, nil
}

// field reads the number of one name in a file of lines with a name and a number. Without that name it is 0.
func field(file, name string) (int64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(content) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, nil
}

// traffic sums the bytes of all interfaces in /proc/PID/net/dev, except the loopback.
func traffic(dev []byte) (received, sent int64) {
	for line := range bytes.Lines(dev) {
		name, rest, ok := strings.Cut(string(line), ":")
		fields := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(fields) < 9 {
			continue
		}
		in, errIn := strconv.ParseInt(fields[0], 10, 64)
		out, errOut := strconv.ParseInt(fields[8], 10, 64)
		if errIn == nil && errOut == nil {
			received, sent = received+in, sent+out
		}
	}
	return received, sent
}
