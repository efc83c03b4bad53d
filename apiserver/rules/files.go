package rules

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// MaxBlobBytes limits all stored contents together.
	MaxBlobBytes = 512 << 20
	// BlobBatch limits how many contents one transaction marks, deletes or keeps.
	BlobBatch = 50
)

// KeepBlob takes the mark of a content away.
func KeepBlob(t *state.Tx, b *carav1.Blob) {
	if b.GetUnusedTime() != nil {
		b = proto.CloneOf(b)
		b.UnusedTime = nil
		t.Put(b)
	}
}

// useBlobs checks that the files of a project are stored, and keeps them.
func useBlobs(t *state.Tx, p *carav1.Project) error {
	for i, svc := range p.GetSpec().GetServices() {
		for j, f := range svc.GetFiles() {
			at := fmt.Sprintf("spec.services[%d].files[%d].from", i, j)
			if f.GetFrom() != "" && len(f.GetEntries()) == 0 {
				return api.Invalid(Describe(p), api.Field(at, "is read by a source, or by `caractrl apply -f` beside the manifest; over the API, put the text into content"))
			}
			for _, e := range f.GetEntries() {
				if err := useBlob(t, p, at, e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func useBlob(t *state.Tx, p *carav1.Project, at string, e *carav1.FileEntry) error {
	if t.DryRun {
		return nil
	}
	b, ok := state.Get[*carav1.Blob](t.Seen, e.GetDigest())
	if !ok || b.GetSize() != e.GetSize() {
		return api.Invalid(Describe(p), api.Field(at, "the content of the file is not stored; apply the manifest again with `caractrl apply -f`"))
	}
	if b.GetUnusedTime() != nil {
		if t.WritesSoFar() > BlobBatch {
			return api.Unavailable("too many files of project %q were unused for a while: apply it again", p.GetMetadata().GetName())
		}
		b, _ = state.Read[*carav1.Blob](t, e.GetDigest()) // a condition: the collector may delete it now
		KeepBlob(t, b)
	}
	return nil
}
