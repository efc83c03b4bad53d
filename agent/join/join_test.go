package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCA signs servers and nodes.
type fakeCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newCA(t *testing.T) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{key: key, cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (ca *fakeCA) sign(t *testing.T, cn string, public any, life time.Duration, usage x509.ExtKeyUsage) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn}, DNSNames: []string{cn}, NotBefore: time.Now().Add(-time.Second),
		NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// fakeServer is the server's side of joining.
type fakeServer struct {
	carav1.UnimplementedNodeServiceServer
	carav1.UnimplementedInfoServiceServer
	t    *testing.T
	ca   *fakeCA
	addr string

	mu    sync.Mutex
	joins int
	fail  error
	asked func(ctx context.Context) // is called by Join, if it is not nil
	peers []string                  // serial numbers of the client certificates, in the order of the calls
}

// serve starts a fake server whose own certificate has this name and usage.
func serve(t *testing.T, ca *fakeCA, name string, usage x509.ExtKeyUsage) *fakeServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	leaf := ca.sign(t, name, key.Public(), time.Hour, usage)
	gs := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, ca.cert.Raw}, PrivateKey: key}},
	})))
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeServer{t: t, ca: ca, addr: l.Addr().String()}
	carav1.RegisterNodeServiceServer(gs, s)
	carav1.RegisterInfoServiceServer(gs, s)
	done := make(chan error, 1)
	go func() { done <- gs.Serve(l) }()
	t.Cleanup(func() {
		gs.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *fakeServer) Join(ctx context.Context, req *carav1.JoinRequest) (*carav1.JoinResponse, error) {
	if s.asked != nil {
		s.asked(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joins++
	if s.fail != nil {
		return nil, s.fail
	}
	return s.certify(req.GetCsr(), req.GetNodeName())
}

func (s *fakeServer) RenewCertificate(ctx context.Context, req *carav1.RenewCertificateRequest) (*carav1.JoinResponse, error) {
	return s.certify(req.GetCsr(), strings.TrimPrefix(clientCert(ctx).Subject.CommonName, "node/"))
}

func (s *fakeServer) certify(csr []byte, node string) (*carav1.JoinResponse, error) {
	block, _ := pem.Decode(csr)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	der := s.ca.sign(s.t, "node/"+node, request.PublicKey, time.Hour, x509.ExtKeyUsageClientAuth)
	return &carav1.JoinResponse{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Ca: s.ca.pem, ClusterId: "c1",
	}, nil
}

func (s *fakeServer) GetInfo(ctx context.Context, _ *emptypb.Empty) (*carav1.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = append(s.peers, clientCert(ctx).SerialNumber.String())
	return &carav1.Info{}, nil
}

func clientCert(ctx context.Context) *x509.Certificate {
	p, _ := peer.FromContext(ctx)
	return p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
}

func (s *fakeServer) config(t *testing.T) Config {
	return Config{
		Server: "http://" + s.addr, NodeName: "n1", DataDir: t.TempDir(),
		Token: api.JoinToken{CAHash: hashOf(s.ca.cert), ID: "join", Secret: "s3cret"}.String(),
	}
}

func TestJoinKeepsAndReuses(t *testing.T) {
	s := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
	cfg := s.config(t)
	first, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if first.ClusterID() != "c1" || first.NodeName() != "n1" || time.Until(first.NotAfter()) <= 0 {
		t.Errorf("credentials of %s in %s until %s", first.NodeName(), first.ClusterID(), first.NotAfter())
	}
	info, err := os.Stat(filepath.Join(cfg.DataDir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, fileName))
	if err != nil || strings.Contains(string(text), "s3cret") {
		t.Errorf("the token's secret was kept (%v)", err)
	}

	// Again, with the server unreachable and without a token: the stored identity suffices.
	again := cfg
	again.Token, again.Server = "", "192.0.2.1:1"
	if _, err := Join(t.Context(), again); err != nil {
		t.Error(err)
	}
	// It has ended: join again.
	cfg.Now = func() time.Time { return time.Now().Add(59 * time.Minute) }
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	again.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, err := Join(t.Context(), again); err == nil || !strings.Contains(err.Error(), "join token") {
		t.Errorf("ended, without a token: %v", err)
	}
	if s.joins != 1 {
		t.Errorf("%d joins, want 1", s.joins)
	}
	// The cluster was set up again: the new token takes precedence.
	other := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
	moved := other.config(t)
	moved.DataDir = cfg.DataDir
	if _, err := Join(t.Context(), moved); err != nil || other.joins != 1 {
		t.Errorf("another cluster: %v, %d joins", err, other.joins)
	}
}

func TestJoinTrustsNobodyElse(t *testing.T) {
	ca := newCA(t)
	tests := []struct {
		name   string
		server *fakeServer
		token  *fakeCA
	}{
		{"another authority", serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth), ca},
		{"a node that poses as the server", serve(t, ca, serverName, x509.ExtKeyUsageClientAuth), ca},
		{"a server of another name", serve(t, ca, "other", x509.ExtKeyUsageServerAuth), ca},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := test.server.config(t)
			cfg.Token = api.JoinToken{CAHash: hashOf(test.token.cert), ID: "join", Secret: "s3cret"}.String()
			_, err := Join(t.Context(), cfg)
			if !errors.Is(err, ErrPin) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want ErrPin", err)
			}
			if test.server.joins != 0 {
				t.Error("the secret was sent")
			}
		})
	}
}

func TestJoinErrors(t *testing.T) {
	s := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
	good := s.config(t)
	with := func(change func(*Config)) Config {
		cfg := good
		cfg.DataDir = t.TempDir()
		change(&cfg)
		return cfg
	}
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"no name":      {with(func(c *Config) { c.NodeName = "" }), "node name"},
		"no directory": {with(func(c *Config) { c.DataDir = "" }), "data directory"},
		"no server":    {with(func(c *Config) { c.Server = "" }), "https://HOST:PORT"},
		"bad scheme":   {with(func(c *Config) { c.Server = "ftp://x" }), "scheme"},
		"with a path":  {with(func(c *Config) { c.Server = "https://x/y" }), "https://HOST:PORT"},
		"bad token":    {with(func(c *Config) { c.Token = "s3cret" }), "join token"},
		"no token":     {with(func(c *Config) { c.Token = "" }), "join token"},
	} {
		_, err := Join(t.Context(), test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	s.fail = api.Unauthenticated("join token is used up")
	if _, err := Join(t.Context(), with(func(*Config) {})); err == nil || !strings.Contains(err.Error(), "used up") || s.joins != 1 {
		t.Errorf("refused: %v after %d tries", err, s.joins)
	}
	s.fail = nil
	if _, err := Join(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	other := good
	other.NodeName = "n2"
	if _, err := Join(t.Context(), other); err == nil || !strings.Contains(err.Error(), "that of node n1") {
		t.Errorf("another node's directory: %v", err)
	}
	path := filepath.Join(good.DataDir, fileName)
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), good); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("torn file: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), good); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open file: %v", err)
	}
}

// TestRenewReconnects: after a renewal the connection is reopened with the new certificate, without an action of the caller.
func TestRenewReconnects(t *testing.T) {
	s := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
	cfg := s.config(t)
	c, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info := carav1.NewInfoServiceClient(conn)
	call := func() {
		t.Helper()
		if _, err := info.GetInfo(t.Context(), &emptypb.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	call()
	call()
	before := c.current.Load()
	if err := c.renew(t.Context(), carav1.NewNodeServiceClient(conn)); err != nil {
		t.Fatal(err)
	}
	if c.current.Load() == before {
		t.Fatal("no new certificate")
	}
	// A call that is sent before gRPC notices the closed connection would fail. It connects again only for the next call.
	for conn.GetState() == connectivity.Ready {
		conn.WaitForStateChange(t.Context(), connectivity.Ready)
	}
	call()
	if s.peers[0] != s.peers[1] || s.peers[1] == s.peers[2] {
		t.Errorf("client certificates of the calls: %v", s.peers)
	}
	kept, err := load(cfg.DataDir)
	if err != nil || kept.cert.Leaf.SerialNumber.String() != s.peers[2] {
		t.Errorf("the new certificate was not kept: %v", err)
	}
	if len(c.conns) != 1 {
		t.Errorf("%d connections are remembered", len(c.conns))
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:8080": "127.0.0.1:8080", "https://cara.example": "cara.example:8080", "cara.example:9": "cara.example:9",
		"https://[::1]:7/": "[::1]:7", "cara": "cara:8080",
	} {
		if got, err := address(in); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "http://", "https://user:pw@x", "unix:///x", "https://x?y", "://"} {
		if got, err := address(in); err == nil {
			t.Errorf("%s: %s, want an error", in, got)
		}
	}
}
