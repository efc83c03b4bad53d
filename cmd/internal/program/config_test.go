package program

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent"
)

func TestConfigIsRefusedByTheNameOfItsFlag(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	limits := func(l agent.Limits) error {
		c := &AgentConfig{NodeName: "n1", DataDir: "d", Server: "http://127.0.0.1:1", Logger: logger, Limits: l}
		return c.Validate()
	}
	placement := func(p string) error {
		c := &ServerConfig{DataDir: "d", Listen: "127.0.0.1:0", Logger: logger, Placement: p}
		return c.Validate()
	}
	balancers := func(ingress string, networks ...string) error {
		c := &AgentConfig{NodeName: "n1", DataDir: "d", Server: "http://127.0.0.1:1", Logger: logger, IngressListen: ingress, ProxyProtocolFrom: networks}
		return c.Validate()
	}
	storedIn := func(store string, e EtcdConfig) error {
		c := &ServerConfig{DataDir: "d", Listen: "127.0.0.1:0", Logger: logger, Store: store, Etcd: e}
		return c.Validate()
	}
	provider := func(o OpenIDConfig) error {
		c := &ServerConfig{DataDir: "d", Listen: "127.0.0.1:0", Logger: logger, OpenID: o}
		return c.Validate()
	}
	local := []string{"http://127.0.0.1:2379"}
	tests := map[string]struct {
		err  error
		want string
	}{
		"on disk":               {storedIn("pebble", EtcdConfig{}), ""},
		"in etcd":               {storedIn("etcd", EtcdConfig{Endpoints: local}), ""},
		"in another store":      {storedIn("mysql", EtcdConfig{}), `--store "mysql": want pebble or etcd`},
		"etcd without a store":  {storedIn("", EtcdConfig{Endpoints: local}), "--store etcd is missing"},
		"etcd nowhere":          {storedIn("etcd", EtcdConfig{}), "0 etcd endpoints are given"},
		"half a certificate":    {storedIn("etcd", EtcdConfig{Endpoints: local, CertFile: "x"}), "--etcd-cert and --etcd-key belong together"},
		"half a login":          {storedIn("etcd", EtcdConfig{Endpoints: local, User: "x"}), "--etcd-user and --etcd-password-file belong together"},
		"no authority":          {storedIn("etcd", EtcdConfig{Endpoints: local, CAFile: "missing"}), "--etcd-ca: open missing"},
		"no password":           {storedIn("etcd", EtcdConfig{Endpoints: local, User: "x", PasswordFile: "missing"}), "--etcd-password-file: open missing"},
		"load balancers":        {balancers(":8081", "10.0.0.0/24", "2001:db8::1/128"), ""},
		"an address":            {balancers(":8081", "10.0.0.1"), `--proxy-protocol-from "10.0.0.1": want a network`},
		"nothing to connect to": {balancers("", "10.0.0.0/24"), "--proxy-protocol-from needs an address"},
		"defaults":              {limits(agent.Limits{}), ""},
		"limits":                {limits(agent.Limits{DiskPressure: 95, MemoryPressure: 2.5, CollectAbove: 70, CollectTo: 60}), ""},
		"more than all":         {limits(agent.Limits{DiskPressure: 101}), "--disk-pressure 101"},
		"less than nothing":     {limits(agent.Limits{MemoryPressure: -1}), "--memory-pressure -1"},
		"collects for ever":     {limits(agent.Limits{CollectAbove: 70, CollectTo: 80}), "--image-gc-low 80 is above --image-gc-high 70"},
		"no placement named":    {placement(""), ""},
		"spread":                {placement("spread"), ""},
		"binpack":               {placement("binpack"), ""},
		"a provider's client":   {provider(OpenIDConfig{ClientID: "cara"}), "need --oidc-issuer"},
		"no role":               {provider(OpenIDConfig{Issuer: "https://id.example.com", ClientID: "cara", RoleMap: []string{"ops"}}), `--oidc-role-map "ops"`},
		"no client's secret":    {provider(OpenIDConfig{Issuer: "https://id.example.com", ClientID: "cara", ClientSecretFile: "missing"}), "--oidc-client-secret-file: open missing"},
		"no provider's roots":   {provider(OpenIDConfig{Issuer: "https://id.example.com", ClientID: "cara", CAFile: "missing"}), "--oidc-ca: open missing"},
		"some other placement":  {placement("best"), `--placement "best": want spread or binpack`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if (tt.err == nil) != (tt.want == "") || tt.err != nil && !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("got %v, want %q", tt.err, tt.want)
			}
		})
	}
}

func TestTheIngressAddressThatOtherNodesAreTold(t *testing.T) {
	lan := func() netip.Addr { return netip.MustParseAddr("10.0.0.7") }
	unknown := func() netip.Addr { return netip.Addr{} }
	for name, tt := range map[string]struct {
		flag, listening string
		local           func() netip.Addr
		want, err       string
	}{
		"one address":                  {"", "127.0.0.1:8081", lan, "127.0.0.1:8081", ""},
		"every address":                {"", "[::]:8081", lan, "10.0.0.7:8081", ""},
		"every IPv4 address":           {"", "0.0.0.0:8081", lan, "10.0.0.7:8081", ""},
		"every address, none is known": {"", "[::]:8081", unknown, "", ""},
		"the flag":                     {"n7.example:80", "[::]:8081", lan, "n7.example:80", ""},
		"a flag without a port":        {"n7.example", "[::]:8081", lan, "", "HOST:PORT"},
		"a flag without a host":        {":8081", "[::]:8081", lan, "", "HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &AgentConfig{IngressAddress: tt.flag, Logger: slog.New(slog.DiscardHandler)}
			got, err := c.ingressAddress(tt.listening, tt.local)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q (%v), want %q (%q)", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestAnEmptyJoinTokenFile: if a node has no certificate and its token file is empty, the error names the file.
func TestAnEmptyJoinTokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := AgentConfig{
		Server: "http://127.0.0.1:1", NodeName: "n1", DataDir: t.TempDir(), JoinTokenFile: file, IngressListen: "127.0.0.1:0",
		NetworkPool: netip.MustParsePrefix("10.213.0.0/16"), Logger: slog.New(slog.DiscardHandler),
	}
	if err := cfg.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "give it a join token (the file "+file+" is empty") {
		t.Errorf("the error is %v", err)
	}
}

// TestDataDirIsAbsolute: programs that the agent starts run in other directories.
func TestDataDirIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	c := &AgentConfig{NodeName: "n1", DataDir: "n1", Server: "http://127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "n1"); c.DataDir != want {
		t.Errorf("the data directory is %s, want %s", c.DataDir, want)
	}
}
