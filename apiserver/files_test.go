package apiserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
)

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// withFile returns a project whose service has a file of a source.
func withFile(name, content string) *carav1.Project {
	p := web(name)
	p.Spec.Services[0].Files = []*carav1.File{{Path: "/etc/f", From: "./f", Entries: []*carav1.FileEntry{{Digest: digestOf(content), Size: int32(len(content))}}}}
	return p
}

// TestFilesAreStoredOnce: equal contents are one, a project uses only what is stored, and only its node reads it.
func TestFilesAreStoredOnce(t *testing.T) {
	c := newCluster(t, nil)
	files, projects := carav1.NewFileServiceClient(c.admin(t)), carav1.NewProjectServiceClient(c.admin(t))
	_, err := projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: withFile("a", "one")})
	testproblem.Want(t, err, codes.InvalidArgument, "")
	unread := withFile("a", "one")
	unread.Spec.Services[0].Files[0].Entries = nil
	_, err = projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: unread})
	testproblem.Want(t, err, codes.InvalidArgument, "")
	if p := api.ProblemOf(err); len(p.GetErrors()) != 1 || !strings.Contains(p.GetErrors()[0].GetMessage(), "caractrl apply -f") {
		t.Errorf("problem %v", p)
	}
	for range 2 {
		put, err := files.PutBlob(t.Context(), &carav1.BlobContent{Content: []byte("one")})
		if err != nil || put.GetDigest() != digestOf("one") {
			t.Fatalf("%v, %v", put, err)
		}
	}
	if all := state.List[*carav1.Blob](c.db.Cache, ""); len(all) != 1 || all[0].GetSize() != 3 {
		t.Errorf("stored %v", all)
	}
	missing, err := files.MissingBlobs(t.Context(), &carav1.MissingBlobsRequest{Digests: []string{digestOf("one"), digestOf("two")}})
	if err != nil || strings.Join(missing.GetDigests(), " ") != digestOf("two") {
		t.Errorf("missing %v, %v", missing, err)
	}
	n1, n2 := carav1.NewFileServiceClient(c.node(t, "n1")), carav1.NewFileServiceClient(c.node(t, "n2"))
	c.create(t, withFile("a", "one"))
	_, err = n1.GetBlob(t.Context(), &carav1.GetRequest{Name: digestOf("one")})
	testproblem.Want(t, err, codes.PermissionDenied, "")
	c.bind(t, "a", "n1")
	got, err := n1.GetBlob(t.Context(), &carav1.GetRequest{Name: digestOf("one")})
	if err != nil || string(got.GetContent()) != "one" {
		t.Errorf("%v, %v", got, err)
	}
	_, err = n2.GetBlob(t.Context(), &carav1.GetRequest{Name: digestOf("one")})
	testproblem.Want(t, err, codes.PermissionDenied, "")
}

// TestUnusedFilesAreDeleted: not before they were unused for a while, and not while a project, a claim, or the history of a
// project has them.
func TestUnusedFilesAreDeleted(t *testing.T) {
	h := newHouse(t, nil)
	files, projects := carav1.NewFileServiceClient(h.as(t, "admin")), carav1.NewProjectServiceClient(h.as(t, "admin"))
	collector := carav1.NewFileServiceClient(h.loop(t, "gc"))
	for _, content := range []string{"used", "older", "unused", "again"} {
		if _, err := files.PutBlob(t.Context(), &carav1.BlobContent{Content: []byte(content)}); err != nil {
			t.Fatal(err)
		}
	}
	apply := func(content string) {
		t.Helper()
		if _, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: withFile("a", content)}); err != nil {
			t.Fatal(err)
		}
	}
	trim := func(unusedFor time.Duration) *carav1.TrimBlobsResponse {
		t.Helper()
		out, err := collector.TrimBlobs(t.Context(), &carav1.TrimBlobsRequest{Before: timestamppb.New(time.Now().Add(-unusedFor))})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	apply("older")
	apply("used")
	if out := trim(-time.Hour); out.GetDeleted() != 0 || out.GetKept() != 4 {
		t.Errorf("the first look deletes: %v", out)
	}
	missing, err := files.MissingBlobs(t.Context(), &carav1.MissingBlobsRequest{Digests: []string{digestOf("used"), digestOf("unused"), digestOf("again")}})
	if err != nil || len(missing.GetDigests()) != 2 {
		t.Errorf("missing %v, %v, want what may be deleted", missing, err)
	}
	if out := trim(time.Hour); out.GetDeleted() != 0 {
		t.Errorf("deleted too early: %v", out)
	}
	apply("again") // takes its mark away
	if out := trim(-time.Hour); out.GetDeleted() != 1 || out.GetKept() != 3 || out.GetKeptBytes() != int64(len("used"+"older"+"again")) {
		t.Errorf("trimmed %v", out)
	}
	if _, err := h.db.Store.Get(t.Context(), state.BlobContentKey(digestOf("unused"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the content is still there: %v", err)
	}
	if _, err := projects.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "a", To: "1"}); err != nil {
		t.Errorf("roll back: %v", err)
	}
	if got := api.Blobs(mustGet(t, projects, "a").GetSpec()); got[0] != digestOf("older") {
		t.Errorf("rolled back to %v", got)
	}
}

func mustGet(t *testing.T, projects carav1.ProjectServiceClient, name string) *carav1.Project {
	t.Helper()
	p, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
