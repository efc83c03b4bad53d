package testetcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testclock"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// patience is how long a member may take to answer.
const patience = 3 * time.Minute

// Config says what to run. The zero value is one member of the new version without TLS.
type Config struct {
	Program Program
	Members int
	TLS     bool     // clients need a certificate: see Cluster.Files
	Args    []string // more arguments of each member
	// Machines are where the members run, one for each. By default they share loopback.
	Machines []*testnet.Machine
	// Clocks are the members' clocks, one for each, for a Program with such a clock. By default they have that of the machine.
	Clocks []*testclock.Clock
	// Dir has the members' data directories; see DataDir. The default is a temporary one.
	Dir string
}

// Cluster is a running etcd cluster on loopback.
type Cluster struct {
	// Endpoints are the client URLs of the members.
	Endpoints []string
	// CAFile, CertFile and KeyFile are the authority, and the certificate and key for clients, if the cluster uses TLS.
	CAFile, CertFile, KeyFile string

	tb      testing.TB
	cfg     Config
	program string
	peers   []string
	state   string // of the cluster, for a member without data: new or existing
	members []*testcluster.Process
	client  *http.Client
}

// Start runs a cluster until the test ends.
func Start(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	testneed.NotShort(tb)
	if cfg.Program == nil {
		cfg.Program = New
	}
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	c := &Cluster{tb: tb, cfg: cfg, program: cfg.Program(tb), state: "new", client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	scheme := "http"
	if cfg.TLS {
		scheme = "https"
		c.secure()
	}
	for i := range max(1, cfg.Members) {
		c.Endpoints = append(c.Endpoints, scheme+"://"+c.address(i, "2379"))
		c.peers = append(c.peers, "http://"+c.address(i, "2380"))
	}
	c.members = make([]*testcluster.Process, len(c.Endpoints))
	tb.Cleanup(c.end)
	for i := range c.members {
		c.launch(i)
	}
	for i := range c.members {
		c.await(i)
	}
	return c
}

// address returns where a member listens: at this port of its machine, or at a free one of loopback.
func (c *Cluster) address(i int, port string) string {
	if c.cfg.Machines != nil {
		return net.JoinHostPort(c.cfg.Machines[i].IP, port)
	}
	addr, err := testcluster.FreeAddress()
	c.must(err)
	return addr
}

// Run starts a member again and waits until it answers.
func (c *Cluster) Run(i int) {
	c.tb.Helper()
	c.launch(i)
	c.await(i)
}

// Mend waits until a member answers, and starts it if it has ended.
func (c *Cluster) Mend(i int) {
	c.tb.Helper()
	c.awaits(i, func() error {
		if c.members[i].Exited() { // also one that was about to end
			c.launch(i)
		}
		return nil
	})
}

// Kill kills a member like a crash.
func (c *Cluster) Kill(i int) {
	c.tb.Helper()
	c.must(c.members[i].Kill())
}

// Member returns the process of a member.
func (c *Cluster) Member(i int) *testcluster.Process { return c.members[i] }

// DataDir returns the data directory of a member.
func (c *Cluster) DataDir(i int) string { return filepath.Join(c.cfg.Dir, fmt.Sprintf("m%d", i)) }

// Program returns the path of etcd.
func (c *Cluster) Program() string { return c.program }

func (c *Cluster) launch(i int) {
	c.tb.Helper()
	var all []string
	for n, peer := range c.peers {
		all = append(all, fmt.Sprintf("m%d=%s", n, peer))
	}
	name := fmt.Sprintf("m%d", i)
	argv := []string{
		c.program, "--name", name, "--data-dir", c.DataDir(i), "--logger", "zap",
		"--listen-client-urls", c.Endpoints[i], "--advertise-client-urls", c.Endpoints[i],
		"--listen-peer-urls", c.peers[i], "--initial-advertise-peer-urls", c.peers[i],
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", c.state,
	}
	if c.CAFile != "" {
		argv = append(argv, "--client-cert-auth", "--trusted-ca-file", c.CAFile, "--cert-file", filepath.Join(c.cfg.Dir, "server.crt"), "--key-file", filepath.Join(c.cfg.Dir, "server.key"))
	}
	if c.cfg.Machines != nil {
		argv = append(c.cfg.Machines[i].Enter(), argv...)
	}
	env := os.Environ()
	if c.cfg.Clocks != nil {
		env = append(env, c.cfg.Clocks[i].Env())
	}
	p, err := testcluster.Start(filepath.Join(c.cfg.Dir, name+".log"), env, append(argv, c.cfg.Args...)...)
	c.must(err)
	c.members[i] = p
}

// await waits until a member serves with a leader.
func (c *Cluster) await(i int) {
	c.tb.Helper()
	c.awaits(i, func() error {
		if c.members[i].Exited() {
			return testcluster.Fatal(fmt.Errorf("it ended:\n%s", c.members[i].Tail(20)))
		}
		return nil
	})
}

// awaits waits until a member serves with a leader. Each attempt calls first.
func (c *Cluster) awaits(i int, first func() error) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
	defer cancel()
	c.must(testcluster.WaitFor(ctx, fmt.Sprintf("etcd member %d serves", i), func(ctx context.Context) error {
		if err := first(); err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Endpoints[i]+"/health", http.NoBody)
		if err != nil {
			return err
		}
		answer, err := c.client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", answer.Status)
		}
		return nil
	}))
}

func (c *Cluster) end() {
	for _, p := range c.members {
		if p == nil {
			continue
		}
		if err := p.Kill(); err != nil {
			c.tb.Error(err)
		}
		if c.tb.Failed() {
			c.tb.Logf("etcd: %s", p.Tail(10))
		}
	}
}

// secure makes the certificates.
func (c *Cluster) secure() {
	c.tb.Helper()
	ca, err := testca.New()
	c.must(err)
	c.CAFile, c.CertFile, c.KeyFile = filepath.Join(c.cfg.Dir, "ca.crt"), filepath.Join(c.cfg.Dir, "client.crt"), filepath.Join(c.cfg.Dir, "client.key")
	c.must(os.WriteFile(c.CAFile, ca.PEM(), 0o600))
	for _, name := range []string{"client", "server"} {
		chain, key, err := ca.Both("cara-" + name)
		c.must(err)
		c.must(os.WriteFile(filepath.Join(c.cfg.Dir, name+".crt"), chain, 0o600))
		c.must(os.WriteFile(filepath.Join(c.cfg.Dir, name+".key"), key, 0o600))
	}
	c.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: c.TLSConfig()}
}

// TLSConfig returns a client's TLS configuration, or nil if the cluster does not use TLS.
func (c *Cluster) TLSConfig() *tls.Config {
	c.tb.Helper()
	if c.CAFile == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(c.CAFile)
	c.must(err)
	pool.AppendCertsFromPEM(pem)
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	c.must(err)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}}
}

func (c *Cluster) must(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatal(err)
	}
}
