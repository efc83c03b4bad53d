package api

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
)

// FormatRevision writes a revision of the store as a resourceVersion.
func FormatRevision(r int64) string { return strconv.FormatInt(r, 10) }

// ParseRevision reads a resourceVersion. ok is false for everything that FormatRevision does not write of a revision.
func ParseRevision(s string) (r int64, ok bool) {
	r, err := strconv.ParseInt(s, 10, 64)
	return r, err == nil && r >= 0
}

// RevisionOf returns the revision of an object's last write; 0 if it has none.
func RevisionOf(m proto.Message) int64 {
	r, _ := ParseRevision(Meta(m).GetResourceVersion())
	return r
}

// ShortRevision is a commit, or the hash of a directory, as people write it.
func ShortRevision(revision string) string {
	if len(revision) > 7 && !strings.Contains(revision, ":") {
		return revision[:7]
	}
	return revision
}
