package api

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
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

// FeatureSecretVars means that an agent replaces `secretVars`. An older agent would use the text as it is.
const FeatureSecretVars = "secretVars"
