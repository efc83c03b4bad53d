// Package hostvolume is about the paths of a node that its operator offers to projects: it parses them, refuses those that
// projects must not see, and reports which are missing.
package hostvolume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Parse parses the host volumes that a node's operator offers to projects, each as
// `NAME=PATH[,ro][,projects=PATTERN[;PATTERN]]`, and resolves the symbolic links of their paths. The text may be split at its
// commas already, as lists of settings are.
func Parse(args []string) ([]step.HostVolume, error) {
	var out []step.HostVolume
	for _, arg := range args {
		for part := range strings.SplitSeq(arg, ",") {
			var err error
			if out, err = addHostVolume(out, strings.TrimSpace(part)); err != nil {
				return nil, fmt.Errorf("%w; write NAME=PATH[,ro][,projects=PATTERN[;PATTERN]], such as media=/srv/media,ro", err)
			}
		}
	}
	for i := range out {
		if err := resolve(&out[i]); err != nil {
			return nil, fmt.Errorf("host volume %s: %w", out[i].Offer.GetName(), err)
		}
	}
	if err := nested(out); err != nil {
		return nil, err
	}
	return out, nil
}

// nested returns an error if one host volume is inside another. Who may write to the outer one could put a link to any place
// of the machine in the place of the inner one.
func nested(all []step.HostVolume) error {
	for i, a := range all {
		for _, b := range all[:i] {
			if a.Path != b.Path && overlap(a.Path, b.Path) {
				return fmt.Errorf("host volumes %s and %s cannot both be offered: one of %s and %s is inside the other, and who can write to the outer one could replace the inner one by a link; offer one of them",
					b.Offer.GetName(), a.Offer.GetName(), b.Path, a.Path)
			}
		}
	}
	return nil
}

// addHostVolume parses one part: the begin of a host volume, or an option of the last one.
func addHostVolume(out []step.HostVolume, part string) ([]step.HostVolume, error) {
	key, value, _ := strings.Cut(part, "=")
	patterns := key == "projects" && !strings.HasPrefix(value, "/")
	switch {
	case len(out) == 0 && (part == "ro" || patterns):
		return nil, fmt.Errorf("%q is not after a host volume", part)
	case part == "ro":
		out[len(out)-1].Offer.ReadOnly = true
	case patterns:
		offer := out[len(out)-1].Offer
		for p := range strings.SplitSeq(value, ";") {
			if why := syntax.NamePattern(p); why != "" {
				return nil, fmt.Errorf("projects of host volume %s: %s", offer.GetName(), why)
			}
			offer.Projects = append(offer.Projects, p)
		}
	case !api.IsName(key):
		return nil, fmt.Errorf("%q: the name of a host volume has lower-case letters, digits and dashes", part)
	case !filepath.IsAbs(value):
		return nil, fmt.Errorf("host volume %s: the path %q is not absolute", key, value)
	case slices.ContainsFunc(out, func(h step.HostVolume) bool { return h.Offer.GetName() == key }):
		return nil, fmt.Errorf("host volume %s is given twice", key)
	default:
		out = append(out, step.HostVolume{Offer: &carav1.HostVolume{Name: key}, Path: filepath.Clean(value)})
	}
	return out, nil
}

// resolve resolves the symbolic links of a host volume's path and checks that it may be offered.
func resolve(h *step.HostVolume) error {
	path, err := filepath.EvalSymlinks(h.Path)
	if err != nil {
		return fmt.Errorf("%w; create it, or remove --host-volume %s", err, h.Offer.GetName())
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	h.Path, h.Socket = path, info.Mode().Type() == os.ModeSocket
	if !h.Socket && !info.IsDir() {
		return fmt.Errorf("%s is a %s; only a directory or a socket can be offered", path, kindOf(info))
	}
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		if overlap(path, kernel) {
			return fmt.Errorf("%s cannot be offered: it shows %s, with which a container controls the machine", path, kernel)
		}
	}
	return nil
}

// overlap reports whether one of two paths is in the other.
func overlap(a, b string) bool {
	in := func(a, b string) bool {
		rel, err := filepath.Rel(b, a)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	return in(a, b) || in(b, a)
}

// Check returns an error if a host volume shows a directory that projects must not see.
func Check(all []step.HostVolume, dir, what string) error {
	if dir == "" {
		return nil
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range all {
		if overlap(h.Path, dir) {
			errs = append(errs, fmt.Errorf("host volume %s cannot be offered: its path %s shows %s, %s; choose a path apart from it",
				h.Offer.GetName(), h.Path, what, dir))
		}
	}
	return errors.Join(errs...)
}

// Offers returns the host volumes as the server is told about them.
func Offers(all []step.HostVolume) []*carav1.HostVolume {
	var out []*carav1.HostVolume
	for _, h := range all {
		out = append(out, h.Offer)
	}
	return out
}

// Missing returns why host volumes of a project cannot be mounted now, by their names in the manifest. A path must be
// what it was when the agent started: a link that someone put in its place may lead anywhere.
func Missing(want *step.Want) map[string]string {
	out := map[string]string{}
	for volume, h := range want.Hosts {
		if why := missingPath(h); why != "" {
			out[volume] = why
		}
	}
	return out
}

func missingPath(h step.HostVolume) string {
	path, err := filepath.EvalSymlinks(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Sprintf("%s does not exist; create it, or mount its disk", h.Path)
	}
	if err != nil {
		return err.Error()
	}
	if path != h.Path {
		return fmt.Sprintf("%s was replaced by a link to %s; restart the agent if that is intended", h.Path, path)
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err.Error()
	case h.Socket && info.Mode().Type() != os.ModeSocket:
		return fmt.Sprintf("%s is a %s and was a socket when the agent started", path, kindOf(info))
	case !h.Socket && !info.IsDir():
		return fmt.Sprintf("%s is a %s and was a directory when the agent started", path, kindOf(info))
	}
	return ""
}

func kindOf(info os.FileInfo) string {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return "directory"
	case mode.IsRegular():
		return "file"
	case mode.Type() == os.ModeSocket:
		return "socket"
	}
	return "special file"
}
