package hostvolume_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/hostvolume"
)

func TestParse(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "media"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(os.Symlink(filepath.Join(dir, "media"), filepath.Join(dir, "link")))
	must(os.Symlink("/proc", filepath.Join(dir, "kernel")))
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	must(err)
	defer l.Close()
	for name, c := range map[string]struct {
		args []string // DIR is the directory of the test
		want string
		err  string
	}{
		"none":                   {nil, "", ""},
		"a directory":            {[]string{"media=DIR/media"}, "media DIR/media", ""},
		"read-only":              {[]string{"media=DIR/media,ro"}, "media DIR/media ro", ""},
		"for some projects":      {[]string{"media=DIR/media,projects=jelly-*;shop"}, "media DIR/media jelly-* shop", ""},
		"both":                   {[]string{"media=DIR/media,projects=shop,ro"}, "media DIR/media ro shop", ""},
		"split at commas":        {[]string{"media=DIR/media", "ro", "projects=shop", "tmp=DIR/media/"}, "media DIR/media ro shop, tmp DIR/media", ""},
		"named as an option":     {[]string{"projects=DIR/media"}, "projects DIR/media", ""},
		"one inside the other":   {[]string{"media=DIR/media", "all=DIR"}, "", "one of DIR/media and DIR is inside the other"},
		"one path, two names":    {[]string{"media=DIR/media", "read=DIR/media,ro"}, "media DIR/media, read DIR/media ro", ""},
		"a link":                 {[]string{"media=DIR/link"}, "media DIR/media", ""},
		"a socket":               {[]string{"docker=DIR/s"}, "docker DIR/s socket", ""},
		"a file":                 {[]string{"media=DIR/file"}, "", "DIR/file is a file; only a directory or a socket"},
		"a missing path":         {[]string{"media=DIR/nothing"}, "", "no such file or directory; create it"},
		"a relative path":        {[]string{"media=srv"}, "", `the path "srv" is not absolute`},
		"no path":                {[]string{"media"}, "", `the path "" is not absolute`},
		"a wrong name":           {[]string{"Media=DIR/media"}, "", "lower-case letters"},
		"an unknown option":      {[]string{"media=DIR/media,rw"}, "", `host volume rw: the path "" is not absolute`},
		"given twice":            {[]string{"media=DIR/media", "media=DIR/media"}, "", "host volume media is given twice"},
		"an option alone":        {[]string{"ro"}, "", `"ro" is not after a host volume`},
		"a wrong pattern":        {[]string{"media=DIR/media,projects=Shop"}, "", "projects of host volume media: is \"Shop\""},
		"an empty pattern":       {[]string{"media=DIR/media,projects="}, "", "projects of host volume media"},
		"the whole machine":      {[]string{"root=/"}, "", "/ cannot be offered: it shows /proc, with which a container controls the machine"},
		"the kernel":             {[]string{"kernel=/proc/self"}, "", "cannot be offered"},
		"the kernel over a link": {[]string{"kernel=DIR/kernel"}, "", "/proc cannot be offered"},
		"devices":                {[]string{"dev=/dev"}, "", "/dev cannot be offered"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.args {
				c.args[i] = strings.ReplaceAll(c.args[i], "DIR", dir)
			}
			got, err := hostvolume.Parse(c.args)
			var said []string
			for _, h := range got {
				line := h.Offer.GetName() + " " + strings.ReplaceAll(h.Path, dir, "DIR")
				if h.Offer.GetReadOnly() {
					line += " ro"
				}
				if h.Socket {
					line += " socket"
				}
				said = append(said, strings.Join(append([]string{line}, h.Offer.GetProjects()...), " "))
			}
			if text := strings.Join(said, ", "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if (err != nil) != (c.err != "") || !strings.Contains(strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}
