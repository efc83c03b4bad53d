package api

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Limits of `files[].from`.
const (
	// MaxFileBytes is the size of one file.
	MaxFileBytes = 256 << 10
	// MaxServiceFiles and MaxServiceFileBytes are the number and the size of a service's files together.
	MaxServiceFiles     = 64
	MaxServiceFileBytes = 1 << 20
)

// FeatureFiles means that an agent knows `files[].from`. An older agent would create an empty file.
const FeatureFiles = "files"

// AgentFeatures are what agents of this version know.
func AgentFeatures() []string { return []string{FeatureFiles, FeatureSecretVars} }

// ProjectFeatures returns what an agent must know to run a project.
func ProjectFeatures(spec *carav1.ProjectSpec) []string {
	var files, vars bool
	for _, s := range spec.GetServices() {
		for _, f := range s.GetFiles() {
			files, vars = files || f.GetFrom() != "", vars || len(f.GetSecretVars()) > 0
		}
		vars = vars || slices.ContainsFunc(s.GetEnv(), func(v *carav1.EnvVar) bool { return len(v.GetSecretVars()) > 0 })
	}
	var needs []string
	if files {
		needs = append(needs, FeatureFiles)
	}
	if vars {
		needs = append(needs, FeatureSecretVars)
	}
	return needs
}

// UsesFiles reports whether a project has files of its source.
func UsesFiles(spec *carav1.ProjectSpec) bool {
	return slices.Contains(ProjectFeatures(spec), FeatureFiles)
}

// Digest returns the name under which a content is stored.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Blobs returns the sorted, unique digests of the contents that a project's files have.
func Blobs(spec *carav1.ProjectSpec) []string {
	var all []string
	for _, s := range spec.GetServices() {
		all = append(all, ServiceBlobs(s)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ServiceBlobs returns the digests of the contents that a service's files have.
func ServiceBlobs(s *carav1.Service) []string {
	var all []string
	for _, f := range s.GetFiles() {
		for _, e := range f.GetEntries() {
			all = append(all, e.GetDigest())
		}
	}
	return all
}

// EntryPath returns the path in the container of one file that `from` names.
func EntryPath(f *carav1.File, e *carav1.FileEntry) string {
	return path.Join(f.GetPath(), e.GetPath())
}

// EntryMode returns the permissions of one file that `from` names.
func EntryMode(f *carav1.File, e *carav1.FileEntry) string {
	switch {
	case f.GetMode() != "":
		return f.GetMode()
	case e.GetExecutable():
		return "0555"
	}
	return DefaultFileMode
}

// targets returns the paths in the container of the files that one entry of `files` creates.
func targets(f *carav1.File) []string {
	if len(f.GetEntries()) == 0 {
		return []string{f.GetPath()}
	}
	var all []string
	for _, e := range f.GetEntries() {
		all = append(all, EntryPath(f, e))
	}
	return all
}

// from validates where the files of a service come from.
func (e serviceErrors) from(at string, s *carav1.Service) {
	files, bytes := 0, int64(0)
	for i, f := range s.GetFiles() {
		field := Element(at+".files", i)
		if bad := fromProblem(f.GetFrom()); bad != "" {
			e.add(field+".from", "%q %s; write a path relative to the manifest, such as ./nginx.conf", text.Short(f.GetFrom()), bad)
		}
		if f.GetFrom() == "" && len(f.GetEntries()) > 0 {
			e.add(field+".entries", "belongs to from; set from, and leave entries to Cara")
		}
		e.entries(field, f)
		for _, entry := range f.GetEntries() {
			files, bytes = files+1, bytes+int64(entry.GetSize())
		}
	}
	if files > MaxServiceFiles || bytes > MaxServiceFileBytes {
		e.add(at+".files", "from names %d files with %d KiB; a service may have %d files with %d KiB: put more into the image or a volume",
			files, (bytes+1023)>>10, MaxServiceFiles, MaxServiceFileBytes>>10)
	}
}

func (e serviceErrors) entries(field string, f *carav1.File) {
	seen := map[string]bool{}
	for j, entry := range f.GetEntries() {
		p := entry.GetPath()
		switch {
		case seen[p]:
			e.add(Element(field+".entries", j)+".path", "%q is there twice", text.Short(p))
		case p == "" && len(f.GetEntries()) > 1, p != "" && (path.Clean("/"+p) != "/"+p || pathProblem(p) != ""):
			e.add(Element(field+".entries", j)+".path", "%q is not the path of a file in a directory", text.Short(p))
		case entry.GetDigest() == "":
			e.add(Element(field+".entries", j)+".digest", "is required")
		}
		seen[p] = true
	}
}

// fromProblem returns what is wrong with a path relative to a manifest, or "".
func fromProblem(from string) string {
	if path.IsAbs(from) {
		return "is absolute"
	}
	return pathProblem(from)
}

func pathProblem(p string) string {
	switch {
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "has control characters"
	case strings.Contains(p, `\`):
		return "has a backslash"
	}
	return ""
}
