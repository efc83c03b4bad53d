package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestSecretsOfASource: the server stores the Secrets of a snapshot for their source, refuses those that others have or the source
// may not declare, and deletes those that are gone only after a complete reading that says so.
func TestSecretsOfASource(t *testing.T) {
	c := newCluster(t, nil)
	ctx, admin := t.Context(), c.admin(t)
	conn, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	loop := carav1.NewSourceServiceClient(conn)
	c.secret(t, "age", "", map[string]string{"k": "x"})
	c.secret(t, "mine", "", map[string]string{"k": "x"})
	src, err := carav1.NewSourceServiceClient(admin).CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
		Spec: &carav1.SourceSpec{
			Dir: &carav1.DirSource{Path: "/srv"}, Decryption: &carav1.Decryption{SecretRef: "age"},
			Allow: &carav1.SourceAllow{Names: []string{"shop-*", "mine", "age"}},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	sequence := int64(0)
	publish := func(complete, read bool, names ...string) *carav1.Snapshot {
		t.Helper()
		sequence++
		stream, err := loop.PublishSnapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		req := &carav1.PublishSnapshotRequest{
			Source: "platform", SourceUid: src.GetMetadata().GetUid(), SecretsRead: read,
			Head: &carav1.Snapshot{Revision: "r", Sequence: sequence, Complete: complete},
		}
		for _, name := range names {
			req.Secrets = append(req.Secrets, &carav1.DeclaredSecret{File: name + ".yaml", Line: 3, Secret: &carav1.Secret{
				ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: name, Owner: "user/forged"}, StringData: map[string]string{"k": "v"},
			}})
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		s, err := loop.GetSource(ctx, &carav1.GetRequest{Name: "platform"})
		if err != nil {
			t.Fatal(err)
		}
		return s.GetStatus().GetSnapshot()
	}
	get := func(name string) (*carav1.Secret, error) {
		return carav1.NewSecretServiceClient(admin).GetSecret(ctx, &carav1.GetRequest{Name: name})
	}
	head := publish(true, true, "shop-a", "shop-b", "mine", "age", "bank")
	if head.GetComplete() || head.GetErrorCount() != 3 || head.GetFileErrors()[0].GetFile() != "mine.yaml" || head.GetFileErrors()[0].GetLine() != 3 {
		t.Errorf("the head is %v", head)
	}
	for i, words := range []string{"was not declared by a source", "uses Secret \"age\" itself", "spec.allow.names"} {
		if got := head.GetFileErrors()[i].GetMessage(); !strings.Contains(got, words) {
			t.Errorf("error %q, want %q", got, words)
		}
	}
	a, err := get("shop-a")
	if err != nil || a.GetMetadata().GetOwner() != "source/platform" || a.GetMetadata().GetOrigin().GetFile() != "shop-a.yaml" {
		t.Errorf("%v, %v", a, err)
	}
	publish(true, true, "shop-a", "shop-b")
	if again, err := get("shop-a"); err != nil || again.GetMetadata().GetResourceVersion() != a.GetMetadata().GetResourceVersion() {
		t.Errorf("an equal Secret was written again: %v, %v", again, err)
	}
	_, err = carav1.NewSecretServiceClient(admin).DeleteSecret(ctx, &carav1.DeleteRequest{Name: "shop-a"})
	testproblem.Want(t, err, codes.FailedPrecondition, "")
	_, err = carav1.NewSecretServiceClient(admin).PutSecret(ctx, &carav1.PutSecretRequest{Secret: &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "shop-a"}, StringData: map[string]string{"k": "w"},
	}})
	testproblem.Want(t, err, codes.FailedPrecondition, "")
	publish(false, true, "shop-a") // a file could not be read
	publish(true, false)           // an answer to a request: nothing was read
	if _, err := get("shop-b"); err != nil {
		t.Error(err)
	}
	publish(true, true, "shop-a") // shop-b is gone
	if _, err := get("shop-a"); err != nil {
		t.Error(err)
	}
	_, err = get("shop-b")
	testproblem.Want(t, err, codes.NotFound, "")
	// It went with the head, so whoever waits for the head does not find it any more.
	now, err := loop.GetSource(ctx, &carav1.GetRequest{Name: "platform"})
	if err != nil {
		t.Fatal(err)
	}
	events, err := carav1.NewEventServiceClient(admin).ListEvents(ctx, &carav1.ListEventsRequest{Kind: api.KindSecret, Name: "shop-b"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(events.GetItems(), func(e *carav1.Event) bool {
		return e.GetReason() == api.ReasonDeleted && e.GetMetadata().GetResourceVersion() == now.GetMetadata().GetResourceVersion()
	}) {
		t.Errorf("the source is at %s, the events are %v", now.GetMetadata().GetResourceVersion(), events.GetItems())
	}
}

// TestSecretAndItsLastUserLeave: a Secret is marked because a project uses it, and that project is removed at the same moment.
func TestSecretAndItsLastUserLeave(t *testing.T) {
	c := newCluster(t, nil)
	ctx := asAdmin(t)
	c.ownedSecrets(t, "k", "db")
	c.create(t, user("shop", "db"))
	tries := 0
	err := c.db.Transact(ctx, func(tx *state.Tx) error {
		rules.DropSecret(tx, "db", "its manifest left", "")
		if tries++; tries > 1 {
			return nil
		}
		return c.db.Transact(ctx, func(other *state.Tx) error { other.Remove(api.KindProject, "shop"); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewSecretServiceClient(c.admin(t)).GetSecret(ctx, &carav1.GetRequest{Name: "db"})
	testproblem.Want(t, err, codes.NotFound, "")
}

func asAdmin(t *testing.T) context.Context {
	t.Helper()
	return identity.WithActor(t.Context(), identity.Actor{Name: "user/admin", Role: api.RoleAdmin})
}

// ownedSecrets creates Secrets that source/platform owns, each with one value.
func (c *cluster) ownedSecrets(t *testing.T, value string, names ...string) {
	t.Helper()
	for _, name := range names {
		c.secret(t, name, "", map[string]string{"k": value})
		if err := c.db.Transact(asAdmin(t), func(tx *state.Tx) error {
			s, _ := state.Read[*carav1.Secret](tx, name)
			s = proto.CloneOf(s)
			s.Metadata.Owner = "source/platform"
			tx.Put(s)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// user returns a project that uses Secrets.
func user(name string, secrets ...string) *carav1.Project {
	p := web(name)
	for i, secret := range secrets {
		p.Spec.Services[0].Env = append(p.Spec.Services[0].Env, &carav1.EnvVar{
			Name: fmt.Sprintf("K%d", i), ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: secret, Key: "k"}},
		})
	}
	return p
}

// TestSecretLeavesItsUsers: a marked Secret goes when the last project that uses it changes.
func TestSecretLeavesItsUsers(t *testing.T) {
	c := newCluster(t, nil)
	ctx := asAdmin(t)
	projects, secrets := carav1.NewProjectServiceClient(c.admin(t)), carav1.NewSecretServiceClient(c.admin(t))
	c.ownedSecrets(t, "x", "db", "kept", "used")
	c.create(t, user("one", "db", "kept", "used"))
	c.create(t, user("two", "db"))
	for _, name := range []string{"db", "used"} {
		if err := c.db.Transact(ctx, func(tx *state.Tx) error { rules.DropSecret(tx, name, "its manifest left", ""); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for name, uses := range map[string][]string{"one": {"used"}, "two": nil} {
		if s, err := secrets.GetSecret(ctx, &carav1.GetRequest{Name: "db"}); err != nil || s.GetMetadata().GetDeletionTimestamp() == nil {
			t.Fatalf("project %q uses it still: %v, %v", name, s, err)
		}
		if _, err := projects.PutProject(ctx, &carav1.PutProjectRequest{Project: user(name, uses...)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := secrets.GetSecret(ctx, &carav1.GetRequest{Name: "db"})
	testproblem.Want(t, err, codes.NotFound, "")
	if _, err := secrets.GetSecret(ctx, &carav1.GetRequest{Name: "kept"}); err != nil {
		t.Errorf("a Secret that is not marked: %v", err)
	}
	if _, err := secrets.GetSecret(ctx, &carav1.GetRequest{Name: "used"}); err != nil {
		t.Errorf("a marked Secret that the changed project uses still: %v", err)
	}
}

// TestLargeSecretsLeave: large Secrets, which are written again when they are marked or lose their owner, do not fit into one
// transaction. They leave a source all the same, and so does the source.
func TestLargeSecretsLeave(t *testing.T) {
	c := newCluster(t, nil)
	ctx := asAdmin(t)
	src, err := carav1.NewSourceServiceClient(c.admin(t)).CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b", "c", "d"}
	c.ownedSecrets(t, strings.Repeat("x", validate.MaxSecret-10), names...)
	c.create(t, user("shop", names...))
	conn, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := carav1.NewSourceServiceClient(conn).PublishSnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&carav1.PublishSnapshotRequest{
		Source: "platform", SourceUid: src.GetMetadata().GetUid(), SecretsRead: true, Head: &carav1.Snapshot{Revision: "r", Sequence: 1, Complete: true},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	marked := func(want bool) {
		t.Helper()
		for _, name := range names {
			s, err := carav1.NewSecretServiceClient(c.admin(t)).GetSecret(ctx, &carav1.GetRequest{Name: name})
			if err != nil || (s.GetMetadata().GetDeletionTimestamp() != nil) != want || (s.GetMetadata().GetOwner() != "") != want {
				t.Errorf("Secret %q should be marked: %v; it is %v, %v", name, want, s.GetMetadata(), err)
			}
		}
	}
	marked(true)
	if _, err := carav1.NewSourceServiceClient(c.admin(t)).DeleteSource(ctx, &carav1.DeleteRequest{Name: "platform"}); err != nil {
		t.Fatal(err)
	}
	reconciler, err := c.Client("reconciler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := carav1.NewSourceServiceClient(reconciler).RemoveSource(ctx, &carav1.DeleteRequest{Name: "platform"}); err != nil {
		t.Fatal(err)
	}
	marked(false)
}

// TestSecretOwnerCannotBeForged: the server sets the owner, not the request.
func TestSecretOwnerCannotBeForged(t *testing.T) {
	c := newCluster(t, nil)
	_, err := carav1.NewSecretServiceClient(c.admin(t)).PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "s", Owner: "source/platform"}, StringData: map[string]string{"k": "w"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := carav1.NewSecretServiceClient(c.admin(t)).GetSecret(t.Context(), &carav1.GetRequest{Name: "s"})
	if err != nil || s.GetMetadata().GetOwner() != "" {
		t.Errorf("%v, %v", s, err)
	}
}
