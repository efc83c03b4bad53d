package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestComparePaths(t *testing.T) {
	sorted := []string{"", "a", "a/b", "a/b/c", "a/z", "a!", "a.b", "a.b/c", "aa", "b", "b/\xff", "b\n"}
	for i, a := range sorted {
		for j, b := range sorted {
			got, want := comparePaths([]byte(a), []byte(b)), i-j
			if got < 0 != (want < 0) || got > 0 != (want > 0) {
				t.Errorf("comparePaths(%q, %q) = %d", a, b, got)
			}
		}
	}
}

// list returns entries one by one.
func list(all ...*Entry) entries {
	return func() (*Entry, error) {
		if len(all) == 0 {
			return nil, nil
		}
		next := all[0]
		all = all[1:]
		return next, nil
	}
}

func TestCompare(t *testing.T) {
	file := func(path string, sum byte) *Entry {
		return &Entry{Path: []byte(path), Mode: 0o100644, Size: 10, Sum: []byte{sum}}
	}
	failed := errors.New("cut")
	for name, tt := range map[string]struct {
		original, copied entries
		want             string
		err              error
	}{
		"both empty":       {list(), list(), "", nil},
		"equal":            {list(file("a", 1), file("b", 2)), list(file("a", 1), file("b", 2)), "", nil},
		"nothing arrived":  {list(file("a", 1), file("b", 2)), list(), `"a" is missing; "b" is missing`, nil},
		"nothing sent":     {list(), list(file("a", 1)), `"a" is superfluous`, nil},
		"one in between":   {list(file("a", 1), file("c", 3)), list(file("a", 1), file("b", 2), file("c", 3)), `"b" is superfluous`, nil},
		"content":          {list(file("a", 1)), list(file("a", 2)), `"a": its content differs`, nil},
		"many":             {list(file("a", 1), file("b", 1), file("c", 1), file("d", 1), file("e", 1)), list(), `"a" is missing; "b" is missing; "c" is missing; and 2 more`, nil},
		"the walk fails":   {func() (*Entry, error) { return nil, failed }, list(file("a", 1)), "", failed},
		"the stream fails": {list(file("a", 1)), func() (*Entry, error) { return nil, failed }, "", failed},
		"it fails later": {list(file("a", 1)), func() entries {
			first := list(file("a", 1))
			return func() (*Entry, error) {
				if e, _ := first(); e != nil {
					return e, nil
				}
				return nil, failed
			}
		}(), "", failed},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := compare(tt.original, tt.copied)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v", err)
			}
			if tt.err != nil {
				if c != nil {
					t.Errorf("a comparison that failed says %v", c)
				}
				return
			}
			if c.String() != tt.want || c.Equal() != (tt.want == "") {
				t.Errorf("got %q, want %q", c, tt.want)
			}
		})
	}
}

func TestDiffersInSeconds(t *testing.T) {
	at := func(nsec int64) *Entry { return &Entry{Sec: 7, Nsec: nsec} }
	if why := differs(at(5), at(0)); why != "" {
		t.Errorf("a file system that stores seconds: %s", why)
	}
	if differs(at(0), at(5)) == "" || differs(at(5), at(6)) == "" || differs(&Entry{Sec: 8}, at(0)) == "" {
		t.Error("another time is not a difference")
	}
}

func TestKeepable(t *testing.T) {
	synced := time.Unix(1000, 0)
	for name, tt := range map[string]struct {
		modified, changed time.Duration // before the sync
		synced            time.Time
		want              bool
	}{
		"long ago":             {time.Hour, time.Hour, synced, true},
		"just written":         {time.Second, time.Second, synced, false},
		"written since":        {-time.Second, -time.Second, synced, false},
		"its time was set":     {time.Hour, time.Second, synced, false},
		"a time of the future": {-time.Hour, time.Hour, synced, false},
		"not synced":           {time.Hour, time.Hour, time.Time{}, false},
	} {
		s := state{modified: synced.Add(-tt.modified).UnixNano(), changed: synced.Add(-tt.changed).UnixNano()}
		if got := keepable(s, tt.synced); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestCacheIsUsed: a walk reads only the files that changed since the last one.
func TestCacheIsUsed(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "f")
	if err := os.WriteFile(at, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	walk := func(c *Cache) (sum []byte) {
		err := walkVolume(t.Context(), dir, true, c, func() {}, func(e *Entry) error {
			if e.regular() {
				sum = e.Sum
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	c := &Cache{}
	first := walk(c)
	if len(c.sums) != 0 {
		t.Error("the hash of a file that was just written was kept")
	}
	// A hash that nobody could compute shows that it was taken from the cache, and a changed file that it was not.
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, of, s, err := statEntry(f, "f")
	if err != nil {
		t.Fatal(err)
	}
	c.replace(map[inode]hashed{of.inode: {state: s, sum: [sumSize]byte{1}}})
	if got := walk(c); got[0] != 1 || bytes.Equal(got, first) {
		t.Error("the kept hash was not used")
	}
	if err := errors.Join(os.WriteFile(at, []byte("two"), 0o600), os.Chtimes(at, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if got := walk(c); got[0] == 1 && got[1] == 0 || bytes.Equal(got, first) {
		t.Error("the hash of a changed file was reused")
	}
}

// TestHashIgnoresHoles: the same content has the same hash, however its zeros are stored.
func TestHashIgnoresHoles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int64, parts map[int64]string) {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		err = f.Truncate(size)
		for at, data := range parts {
			_, failed := f.WriteAt([]byte(data), at)
			err = errors.Join(err, failed)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	zeros := strings.Repeat("\x00", 1<<20)
	write("a1", 4<<20, map[int64]string{3 << 20: "x"})
	write("a2", 4<<20, map[int64]string{3 << 20: "x", 0: zeros})
	write("b", 4<<20, map[int64]string{3<<20 + 1: "x"})
	write("c", 4<<20, map[int64]string{2 << 20: "x"})
	write("d", 4<<20+1, map[int64]string{3 << 20: "x"})
	write("e1", 1<<20, nil)
	write("e2", 1<<20, map[int64]string{0: zeros})
	write("f", 0, nil)
	sums := map[string]string{}
	err := walkVolume(t.Context(), dir, false, &Cache{}, func() {}, func(e *Entry) error { sums[string(e.Path)] = string(e.Sum); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if sums["a1"] != sums["a2"] || sums["e1"] != sums["e2"] {
		t.Error("holes count")
	}
	var different []string
	for _, name := range []string{"a1", "b", "c", "d", "e1", "f"} {
		if slices.Contains(different, sums[name]) || sums[name] == "" {
			t.Errorf("%s has the hash of another content", name)
		}
		different = append(different, sums[name])
	}
}

// lostHalfway are the messages of rsync 3.2 and 3.5 when files disappear, one of them after rsync has found it.
const lostHalfway = `file has vanished: x
rsync: [sender] get_acl: sys_acl_get_file(many-0/w380, ACL_TYPE_ACCESS): No such file or directory (2)
IO error encountered -- skipping file deletion

rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1338) [sender=3.5.0]
`

func TestOutcome(t *testing.T) {
	for name, tt := range map[string]struct {
		code     int
		messages string
		running  bool
		want     string
		final    bool
		counts   bool // IsCopyError
	}{
		"success":                        {0, "", false, "", false, false},
		"files vanished":                 {24, "file has vanished", true, "", false, false},
		"files vanished at a standstill": {24, "file has vanished: x", false, "exit code 24: file has vanished: x", false, true},
		"files vanished halfway":         {23, lostHalfway, true, "", false, false},
		"halfway at a standstill":        {23, lostHalfway, false, "exit code 23: file has vanished: x", false, true},
		"files vanished, and an error":   {23, lostHalfway + "rsync: [sender] opendir \"x\" failed: Permission denied (13)\n", true, "exit code 23", false, true},
		"the copy's directory is lost":   {23, `rsync: [receiver] mkstemp "/.x.1" (in volume) failed: No such file or directory (2)`, true, "exit code 23", false, true},
		"the disk is full":               {11, `rsync: [receiver] write failed on "x" (in volume): No space left on device (28)`, true, "no space left", true, false},
		"the quota is used up":           {11, `rsync: write failed on "x": Disk quota exceeded (122)`, true, "no space left", true, false},
		"no attributes there":            {23, `rsync: [generator] rsync_xal_set: lsetxattr("x","user.a") failed: Operation not supported (95)`, false, "cannot store everything", true, false},
		"a disk cannot be read":          {23, `rsync: [sender] read errors mapping "/v/x": Input/output error (5)`, true, "a disk cannot be read or written", true, false},
		"a disk became read-only":        {23, `rsync: [receiver] mkstemp "/.x.1" (in volume) failed: Read-only file system (30)`, true, "a disk cannot be read or written", true, false},
		"an option is unknown":           {1, "rsync: --x: unknown option", true, "exit code 1: rsync: --x: unknown option", true, false},
		"the versions differ":            {2, "protocol version mismatch -- is your shell clean?", true, "exit code 2", true, false},
		"an option is not supported":     {4, "x", true, "exit code 4", true, false},
		"a file changes all the time":    {23, "WARNING: x failed verification -- update discarded", true, "exit code 23", false, true},
		"a file cannot be written":       {11, "rsync: write failed", true, "exit code 11", false, true},
		"the connection broke":           {12, "a\n\nb\nc\nd", true, "exit code 12: a; b; c", false, false},
		"the socket broke":               {10, "x", true, "exit code 10", false, false},
		"it was stopped":                 {20, "x", true, "exit code 20", false, false},
		"nothing arrives":                {30, "", true, "no message", false, false},
		"no connection":                  {35, "x", true, "exit code 35", false, false},
	} {
		s := &Sender{Node: "n2", Dial: func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }}
		err := s.explain(t.Context(), outcome(tt.code, tt.messages, tt.running), 0)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) || IsFinal(err) != tt.final || IsCopyError(err) != tt.counts {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVanishedFiles: thousands of files that vanish leave room for the error.
func TestVanishedFiles(t *testing.T) {
	const wrong = `rsync: [sender] read errors mapping "/v/x": Input/output error (5)`
	said := &firstMessages{}
	out := &lines{do: said.line}
	for i := range maxMessages {
		fmt.Fprintf(out, "file has vanished: %d\n\n", i)
		fmt.Fprintf(out, "rsync: [sender] get_acl: sys_acl_get_file(%d, ACL_TYPE_ACCESS): No such file or directory (2)\n", i)
	}
	fmt.Fprintln(out, wrong)
	if want := "file has vanished: 0\n" + wrong + "\n"; said.String() != want {
		t.Errorf("got %q, want %q", said, want)
	}
}

// TestIsFinal: an error of the disk is final on both nodes, and a broken connection is not.
func TestIsFinal(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"marked":              {fmt.Errorf("copy: %w", final("no")), true},
		"a bad disk":          {fmt.Errorf("read: %w", &fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}), true},
		"a read-only disk":    {&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, true},
		"a bad disk there":    {replyOf(&fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}).err("n2"), true},
		"a broken connection": {fmt.Errorf("ask: %w", syscall.ECONNRESET), false},
		"none":                {nil, false},
	} {
		if IsFinal(tt.err) != tt.want {
			t.Errorf("%s: %v is final: %t", name, tt.err, !tt.want)
		}
	}
}

func TestParseProgress(t *testing.T) {
	for line, want := range map[string][2]int64{
		"    1234  50%    0.00kB/s    0:00:00 (xfr#1, to-chk=1/4)":  {1234, 3},
		"1,238,099 100%  146.38kB/s    0:00:08 (xfr#5, ir-chk=0/9)": {1238099, 9},
		"    77   1%  146.38kB/s    0:00:08":                        {77, 0},
		"":                                                          {-1, 0}, "@ERROR: no": {-1, 0}, "x 5%": {-1, 0}, "-5 5%": {-1, 0}, "5 5% (to-chk=9/4)": {5, 0},
	} {
		done, files, ok := parseProgress([]byte(line))
		if ok != (want[0] >= 0) || ok && [2]int64{done, files} != want {
			t.Errorf("%q: %d %d %v", line, done, files, ok)
		}
	}
}

func TestReceiveConfig(t *testing.T) {
	for _, dir := range []string{"", "x", "/a/../b", "/a\nuid = 5", "/a%HOME%", "/a ", " /a", `/a\`, "/a//b"} {
		if config, err := receiveConfig(dir); err == nil || !IsFinal(err) {
			t.Errorf("%q: %s", dir, config)
		}
	}
	config, err := receiveConfig("/var/lib/docker/volumes/cara-p.db-12345678/_data")
	if err != nil || strings.Count(config, "path = ") != 1 || strings.Count(config, "\n[") != 1 {
		t.Errorf("%s (%v)", config, err)
	}
}

func TestPermit(t *testing.T) {
	grants := map[string]*grant{"u1": {from: "n1"}, "u2": {from: "n2"}}
	for _, tt := range []struct {
		node, uid string
		want      bool
	}{{"n1", "u1", true}, {"n2", "u2", true}, {"n2", "u1", false}, {"n1", "u2", false}, {"n1", "u3", false}, {"", "u1", false}, {"n1", "", false}} {
		if g, err := permit(grants, tt.node, tt.uid); (g != nil) != tt.want || (err == nil) != tt.want {
			t.Errorf("permit(%q, %q): %v", tt.node, tt.uid, err)
		}
	}
}

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		need, has, free int64
		want            bool
	}{{10, 0, 10, true}, {11, 0, 10, false}, {11, 1, 10, true}, {0, 0, 0, true}, {5, 10, 0, true}} {
		if err := fits(tt.need, tt.has, tt.free); (err == nil) != tt.want || err != nil && !IsFinal(err) {
			t.Errorf("fits(%d, %d, %d): %v", tt.need, tt.has, tt.free, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]string{
		"rsync  version 3.2.7  protocol version 31\nCopyright (C) 1996": "3.2.7",
		"restic 0.14.0 compiled with go1.19.8 on linux/amd64\n":         "0.14.0", "": "unknown", "x y\n1.2": "unknown",
	} {
		if got := parseVersion([]byte(output)); got != want {
			t.Errorf("%q: %q", output, got)
		}
	}
}

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	want := item{Entry: &Entry{Path: []byte("not\xff\xfeutf8\n"), Target: []byte("\x01"), Mode: 5}}
	if err := writeMessage(&b, want); err != nil {
		t.Fatal(err)
	}
	rest := b.Len()
	b.WriteString("after")
	var got item
	if err := readMessage(&b, &got); err != nil || !bytes.Equal(got.Entry.Path, want.Entry.Path) || b.String() != "after" {
		t.Errorf("%d bytes became %+v (%v), and %q is left", rest, got.Entry, err, b.String())
	}
	for name, bad := range map[string]string{"too large": "\x7f\xff\xff\xff{}", "cut": "\x00\x00\x00\x05{}", "not JSON": "\x00\x00\x00\x02{[", "empty": ""} {
		if err := readMessage(strings.NewReader(bad), &got); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := writeMessage(&b, item{Entry: &Entry{Path: make([]byte, maxMessage)}}); err == nil {
		t.Error("a message that nobody reads was written")
	}
}

// TestHostileSender: a peer cannot make the receiving rsync use an option or a path that reaches outside of the volume, or
// read from it.
func TestHostileSender(t *testing.T) {
	e := newEnds(t)
	e.write(t, "file", "x")
	outside := filepath.Join(filepath.Dir(e.to), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.to, "there"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	rsh := "--rsh=" + shellWords(helper(t))
	for name, args := range map[string][]string{
		"backup directory":  {"-a", "--backup", "--backup-dir=" + outside, rsh, e.from + "/", "node::volume/"},
		"partial directory": {"-a", "--partial-dir=" + outside, rsh, e.from + "/", "node::volume/"},
		"temp directory":    {"-a", "--temp-dir=" + outside, rsh, e.from + "/", "node::volume/"},
		"compared directory": {
			"-a", "--link-dest=" + outside, rsh, e.from + "/", "node::volume/",
		},
		"log file":          {"-a", "--remote-option=--log-file=" + outside + "/log", rsh, e.from + "/", "node::volume/"},
		"in place":          {"-a", "--inplace", rsh, e.from + "/", "node::volume/"},
		"device writes":     {"-a", "--write-devices", rsh, e.from + "/", "node::volume/"},
		"another module":    {"-a", rsh, e.from + "/", "node::etc/"},
		"reading":           {"-a", rsh, "node::volume/", outside + "/"},
		"a daemon's option": {"-a", "--remote-option=--config=/dev/null", rsh, e.from + "/", "node::volume/"},
		"a path outside":    {"-a", rsh, e.from + "/", "node::volume/../../outside/"},
		"an absolute path":  {"-a", rsh, e.from + "/", "node::volume" + outside + "/"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := e.sender.ask(t.Context(), &request{Operation: opCopy, UID: uid})
			if err != nil {
				t.Fatal(err)
			}
			code, messages, err := rsync(t.Context(), conn, hostile(t, args...), func(int64, int64) {})
			if err != nil {
				t.Fatal(err)
			}
			if code == 0 && !strings.Contains(name, "path") { // in a chroot, a path means one in the volume
				t.Errorf("it succeeded: %s", messages)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("outside of the volume is %v (%v)", left, err)
			}
		})
	}
}

func TestRemoveStaysInside(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := errors.Join(os.Mkdir(in, 0o755), os.Mkdir(out, 0o755), os.WriteFile(filepath.Join(out, "f"), nil, 0o600), os.Symlink(out, filepath.Join(in, "away")),
		os.Mkdir(filepath.Join(in, "d"), 0o755), os.WriteFile(filepath.Join(in, "f"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"../out/f", "away/f", filepath.Join(out, "f")} {
		if err := remove(in, [][]byte{[]byte(p)}); err == nil {
			t.Errorf("%s was removed", p)
		}
	}
	if err := remove(in, [][]byte{[]byte("d"), []byte("missing"), []byte("f"), []byte("away")}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(in)
	_, outside := os.Stat(filepath.Join(out, "f"))
	if err != nil || len(left) != 1 || left[0].Name() != "d" || outside != nil {
		t.Errorf("left: %v (%v, %v)", left, err, outside)
	}
}

// TestNoRoom: a volume that does not fit is refused before anything is copied, with the free space.
func TestNoRoom(t *testing.T) {
	e := newEnds(t)
	_, err := e.sender.ask(t.Context(), &request{Operation: opCopy, UID: uid, Need: 1 << 60})
	if !IsFinal(err) || !strings.Contains(err.Error(), "node n2: no space left for the volume") || !strings.Contains(err.Error(), "GiB are free") {
		t.Errorf("got %v", err)
	}
	e.sender.Dir = filepath.Join(e.from, "gone")
	if err := e.sender.Copy(t.Context(), Pass{}); !IsFinal(err) || !strings.Contains(err.Error(), "must run as root on the machine of the Docker engine") {
		t.Errorf("got %v", err)
	}
	if _, err := e.sender.Compare(context.WithoutCancel(t.Context()), false); !IsFinal(err) {
		t.Errorf("got %v", err)
	}
}
