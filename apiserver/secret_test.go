package apiserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func aSecret(name string, values map[string]string) *carav1.Secret {
	return &carav1.Secret{ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: name}, StringData: values}
}

func TestSecrets(t *testing.T) {
	c := newCluster(t, nil)
	secrets := carav1.NewSecretServiceClient(c.admin(t))
	created, err := secrets.CreateSecret(t.Context(), &carav1.CreateSecretRequest{Secret: aSecret("db", map[string]string{"a": "1", "b": "2"})})
	if err != nil {
		t.Fatal(err)
	}
	_, err = secrets.CreateSecret(t.Context(), &carav1.CreateSecretRequest{Secret: aSecret("db", nil)})
	testproblem.Want(t, err, codes.AlreadyExists, "")

	// The same values, as bytes this time: nothing is written, although sealing is random.
	same := aSecret("db", nil)
	same.Data = map[string][]byte{"a": []byte("1"), "b": []byte("2")}
	put, err := secrets.PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: same})
	if err != nil || put.GetMetadata().GetResourceVersion() != created.GetMetadata().GetResourceVersion() {
		t.Errorf("put of the same: %v, %v", put, err)
	}
	changed, err := secrets.PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: aSecret("db", map[string]string{"a": "3"})})
	if err != nil || changed.GetMetadata().GetGeneration() != 2 || strings.Join(changed.GetKeys(), " ") != "a" ||
		changed.GetMetadata().GetUid() != created.GetMetadata().GetUid() {
		t.Errorf("put: %v, %v", changed, err)
	}
	stale := aSecret("db", nil)
	stale.Metadata.ResourceVersion = created.GetMetadata().GetResourceVersion()
	_, err = secrets.PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: stale})
	testproblem.Want(t, err, codes.Aborted, "")

	list, err := secrets.ListSecrets(t.Context(), &carav1.ListRequest{})
	if err != nil || len(list.GetItems()) != 1 || len(list.GetItems()[0].GetData()) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	if _, err := secrets.DeleteSecret(t.Context(), &carav1.DeleteRequest{Name: "db"}); err != nil {
		t.Fatal(err)
	}
	_, err = secrets.GetSecret(t.Context(), &carav1.GetRequest{Name: "db"})
	testproblem.Want(t, err, codes.NotFound, "")
	events, err := carav1.NewEventServiceClient(c.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindSecret, Name: "db"})
	if err != nil || len(events.GetItems()) != 3 {
		t.Errorf("events: %v, %v", events, err)
	}
}

func TestApplySecret(t *testing.T) {
	c := newCluster(t, nil)
	apply := func(value string, dry bool) *carav1.ApplyResult {
		t.Helper()
		out, err := carav1.NewApplyServiceClient(c.admin(t)).Apply(t.Context(), &carav1.ApplyRequest{
			Objects: []*carav1.Object{api.Wrap(aSecret("db", map[string]string{"a": value}))}, DryRun: dry,
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetResults()[0]
	}
	for _, step := range []struct {
		value string
		dry   bool
		want  string
	}{
		{"one", true, api.ApplyCreated},
		{"one", false, api.ApplyCreated},
		{"one", false, api.ApplyUnchanged},
		{"two", true, api.ApplyConfigured},
		{"two", false, api.ApplyConfigured},
		{"two", true, api.ApplyUnchanged},
	} {
		r := apply(step.value, step.dry)
		if r.GetAction() != step.want || strings.Contains(r.String(), step.value) {
			t.Errorf("apply %s (dry %t): %v, want %s", step.value, step.dry, r, step.want)
		}
	}
}

func TestGetSourceSecret(t *testing.T) {
	c := newCluster(t, nil)
	loop, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	git := &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
		Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.test/platform.git", SecretRef: "git"}},
	}
	if _, err := carav1.NewSourceServiceClient(c.admin(t)).CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: git}); err != nil {
		t.Fatal(err)
	}
	get := func() (*carav1.GetSourceSecretResponse, error) {
		return carav1.NewSourceServiceClient(loop).GetSourceSecret(t.Context(), &carav1.GetSourceSecretRequest{Name: "platform"})
	}
	_, err = get()
	testproblem.Want(t, err, codes.NotFound, "")
	if !strings.Contains(err.Error(), "spec.git.secretRef") {
		t.Errorf("%v says not where", err)
	}
	c.secret(t, "git", "", map[string]string{"token": "t0p"})
	out, err := get()
	if err != nil || string(out.GetGit()["token"]) != "t0p" {
		t.Errorf("%v, %v", out, err)
	}
	// An administrator may not, nor another loop.
	_, err = carav1.NewSourceServiceClient(c.admin(t)).GetSourceSecret(t.Context(), &carav1.GetSourceSecretRequest{Name: "platform"})
	testproblem.Want(t, err, codes.PermissionDenied, "")
	other, err := c.Client("reconciler")
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewSourceServiceClient(other).GetSourceSecret(t.Context(), &carav1.GetSourceSecretRequest{Name: "platform"})
	testproblem.Want(t, err, codes.PermissionDenied, "")
}

// TestLostKey: without the old key the values are lost, reported, and can be set again; the server starts anyway.
func TestLostKey(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "db", "", map[string]string{"password": "p", "user": "u"})
	c.secret(t, "registry", "registry", map[string]string{"server": "r.test", "username": "m", "password": "p"})
	c.create(t, shop("shop"))
	c.stop()
	if err := os.Remove(filepath.Join(c.dir, "secrets.key")); err != nil {
		t.Fatal(err)
	}
	again := openCluster(t, c.dir, nil)
	agent := connectAgent(t, again.node(t, "n1"), "a")
	agent.synced()
	again.bind(t, "shop", "n1")
	if a := agent.assignment(); len(a.GetSecrets()) != 0 {
		t.Errorf("secrets %v", a.GetSecrets())
	}
	if !strings.Contains(again.log.String(), "secret cannot be opened") {
		t.Error("the log does not say so")
	}
	again.secret(t, "db", "", map[string]string{"password": "p", "user": "u"})
	if a := agent.assignment(); string(a.GetSecrets()["db/password"]) != "p" {
		t.Errorf("secrets %v", a.GetSecrets())
	}
}

// TestSealedValuesStayWhereTheyAre: write access to the store does not allow moving a value to another name.
func TestSealedValuesStayWhereTheyAre(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "prod", "", map[string]string{"k": "v"})
	c.secret(t, "test", "", map[string]string{"k": "w"})
	prod, _ := state.Get[*carav1.Secret](c.db.Cache, "prod")
	err := c.db.Transact(t.Context(), func(x *state.Tx) error {
		test, _ := state.Read[*carav1.Secret](x, "test")
		forged := proto.CloneOf(test)
		forged.Data["k"] = prod.GetData()["k"]
		x.Put(forged)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	forged, _ := state.Get[*carav1.Secret](c.db.Cache, "test")
	if value, err := rules.SecretValue(c.db.Vault, forged, "k"); err == nil || value != nil {
		t.Errorf("the value moved: %q, %v", value, err)
	}
}
