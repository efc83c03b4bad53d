package apiserver

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestSecretVersions: a version changes with its own value and with nothing else, and is the same for a value that comes back.
func TestSecretVersions(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "db", "", map[string]string{"password": "p1", "user": "u1"})
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	p := shop("shop")
	p.Spec.ImagePullSecrets = nil
	c.create(t, p)
	c.bind(t, "shop", "n1")
	first := agent.assignment().GetSecretVersions()
	if len(first) != 2 || first["db/password"] == first["db/user"] || len(first["db/password"]) < 16 {
		t.Fatalf("versions %v", first)
	}
	// The same values again, and another label of the Secret: nothing is sent, so the next assignment is for the next
	// change.
	c.secret(t, "db", "", map[string]string{"password": "p1", "user": "u1"})
	if _, err := carav1.NewSecretServiceClient(c.admin(t)).PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "db", Labels: map[string]string{"team": "a"}},
		StringData: map[string]string{"password": "p1", "user": "u1"},
	}}); err != nil {
		t.Fatal(err)
	}
	c.secret(t, "db", "", map[string]string{"password": "p2", "user": "u1"})
	second := agent.assignment()
	if string(second.GetSecrets()["db/password"]) != "p2" {
		t.Fatalf("an assignment without a new value: %v", second.GetSecretVersions())
	}
	if v := second.GetSecretVersions(); v["db/password"] == first["db/password"] || v["db/user"] != first["db/user"] {
		t.Errorf("versions %v after %v", v, first)
	}
	c.secret(t, "db", "", map[string]string{"password": "p1", "user": "u1"})
	if v := agent.assignment().GetSecretVersions(); !cmp.Equal(v, first) {
		t.Errorf("versions %v, want %v", v, first)
	}
}

// TestPullSecretsAreToldOf: all spellings of a registry are equal, and an unused secret is sent with the reason.
func TestPullSecretsAreToldOf(t *testing.T) {
	c := newCluster(t, nil)
	for name, server := range map[string]string{"hub": "https://index.docker.io/v1\n", "hub-again": "docker.io/", "host": "HTTPS://Host.Example:5000/", "bad": "not a registry"} {
		c.secret(t, name, api.SecretRegistry, map[string]string{"server": server, "username": "u-" + name, "password": "p-" + name})
	}
	c.secret(t, "opaque", "", map[string]string{"password": "x"})
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	p := web("shop")
	p.Spec.ImagePullSecrets = []string{"hub", "hub-again", "host", "bad", "opaque", "later"}
	c.create(t, p)
	c.bind(t, "shop", "n1")
	got := agent.assignment()
	auth := map[string]*carav1.RegistryAuth{"docker.io": {Username: "u-hub", Password: "p-hub"}, "host.example:5000": {Username: "u-host", Password: "p-host"}}
	if d := cmp.Diff(auth, got.GetRegistryAuth(), protocmp.Transform()); d != "" {
		t.Errorf("credentials (-want +got):\n%s", d)
	}
	want := []*carav1.PullSecret{
		{Name: "hub", Registry: "docker.io"},
		{Name: "hub-again", Problem: "is for the same registry as one before it in imagePullSecrets, which counts"},
		{Name: "host", Registry: "host.example:5000"},
		{Name: "bad", Problem: "names no registry in its key server; write a host such as registry.example.com:5000"},
		{Name: "opaque", Problem: "needs the keys server, username and password, as a Secret of type registry has them"},
		{Name: "later", Missing: true, Problem: "does not exist"},
	}
	if d := cmp.Diff(want, got.GetPullSecrets(), protocmp.Transform()); d != "" {
		t.Errorf("pull secrets (-want +got):\n%s", d)
	}
	c.secret(t, "later", api.SecretRegistry, map[string]string{"server": "ghcr.io", "username": "u", "password": "p"})
	if again := agent.assignment(); again.GetRegistryAuth()["ghcr.io"] == nil {
		t.Errorf("after the Secret was made: %v", again.GetPullSecrets())
	}
}
