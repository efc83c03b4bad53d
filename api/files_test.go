package api

import (
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestHashOfFiles: a container depends on the content of its files, and not on where it was read.
func TestHashOfFiles(t *testing.T) {
	spec := func(from, digest string) *carav1.ProjectSpec {
		return &carav1.ProjectSpec{Services: []*carav1.Service{
			{Name: "web", Image: "web", Files: []*carav1.File{{Path: "/f", From: from, Entries: []*carav1.FileEntry{{Digest: digest}}}}},
			{Name: "db", Image: "db"},
		}}
	}
	one, moved, changed := spec("./a", "1"), spec("./b", "1"), spec("./a", "2")
	if ServiceHash(one, "web") != ServiceHash(moved, "web") || Hash(one) == Hash(moved) {
		t.Error("a moved file must change the spec, and not the container")
	}
	if ServiceHash(one, "web") == ServiceHash(changed, "web") || ServiceHash(one, "db") != ServiceHash(changed, "db") {
		t.Error("a changed file must change the container of its user, and no other")
	}
}
