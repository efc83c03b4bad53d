package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/internal/test/testca"
)

// TestVolumesComeFromPeersOnly: only a verified node that asked for the protocol in its handshake gets through. Requests of
// clients, and requests that other agents forward, get what they always got, whatever they contain.
func TestVolumesComeFromPeersOnly(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	side := func(node string) *peer.TLS {
		certificate, err := ca.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		return peerTLS(certificate, ca)
	}
	senders := make(chan string, 10)
	in := New(Config{
		Node: "n2", Logger: slog.New(slog.DiscardHandler), Peers: side("n2"), Limits: Limits{Connections: 2, ClientConnections: 20, Header: time.Minute},
		Endpoint: func(string, string) (string, func(), bool) { return "", nil, false },
		Volumes: func(_ context.Context, node string, c net.Conn) {
			defer c.Close()
			senders <- node
			_, _ = io.Copy(c, c)
		},
	})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- in.Run(ctx, Listeners{Internal: l}) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	address := l.Addr().String()

	volume, err := side("n1").DialVolumes(t.Context(), "n2", address)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	if node := <-senders; node != "n1" {
		t.Errorf("the sender is %q", node)
	}
	if _, err := side("n1").DialVolumes(t.Context(), "n3", address); err == nil {
		t.Error("node n2 was taken for n3")
	}

	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + peer.VolumeProtocol + "\r\n\r\n"
	plain, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	replies(t, plain, request, "404")
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	forwarded := tls.Client(raw, side("n1").Dial("n2")) // as dialPeer does
	defer forwarded.Close()
	replies(t, forwarded, request, "404")
	_ = forwarded.Close()
	// The open connection is in use: newer ones that wait do not take its place.
	for range 4 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		replies(t, c, request, "404")
	}
	replies(t, volume, "echo", "echo")
	select {
	case node := <-senders:
		t.Errorf("another connection of %q sends a volume", node)
	default:
	}
}

// replies sends a request and checks the beginning of the answer.
func replies(t *testing.T, c net.Conn, request, want string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	if !strings.Contains(string(buf[:n]), want) {
		t.Errorf("got %q (%v), want %s", buf[:n], err, http.StatusText(http.StatusNotFound))
	}
}

func peerTLS(certificate tls.Certificate, ca *testca.Authority) *peer.TLS {
	return &peer.TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return certificate, ca.Pool() }}
}
