package volume

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// ends are both sides of a move in one process: node n1 sends the directory from to the directory to of node n2, over TLS.
type ends struct {
	from, to string
	receiver *Receiver
	sender   *Sender
	ca       *testca.Authority
	address  string

	mu    sync.Mutex
	conns []net.Conn // those that n2 has accepted
	// wrap changes a connection of the sender. Optional.
	wrap func(net.Conn) net.Conn
}

const uid = "0123456789"

func newEnds(t testing.TB) *ends {
	t.Helper()
	needRsync(t)
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e := &ends{from: filepath.Join(dir, "from"), to: filepath.Join(dir, "to"), ca: ca}
	for _, d := range []string{e.from, e.to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e.receiver = &Receiver{Node: "n2", Log: slog.New(slog.DiscardHandler), Dir: func(_ context.Context, id string) (string, error) {
		if id != uid {
			return "", fmt.Errorf("no volume %s", id)
		}
		return e.to, nil
	}}
	e.receiver.Allow(uid, "n1")
	e.listen(t)
	e.sender = e.senderOf(t, "n1")
	return e
}

// needRsync skips a test on a machine where it cannot run.
func needRsync(t testing.TB) {
	t.Helper()
	testneed.Program(t, "rsync", "rsync")
	if os.Geteuid() != 0 {
		testneed.Missing(t, "rsync needs root for its chroot: run the tests as root")
	}
}

func (e *ends) tls(t testing.TB, node string) peer.TLS {
	t.Helper()
	certificate, err := e.ca.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	return peer.TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return certificate, e.ca.Pool() }}
}

// listen serves the receiver.
func (e *ends) listen(t testing.TB) {
	t.Helper()
	raw, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	side := e.tls(t, "n2")
	e.address = raw.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, c)
			e.mu.Unlock()
			served.Go(func() {
				secured := tls.Server(c, side.Accept())
				if err := secured.HandshakeContext(ctx); err != nil {
					_ = c.Close()
					return
				}
				state := secured.ConnectionState()
				e.receiver.Serve(ctx, side.Node(&state), secured)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = raw.Close()
		served.Wait()
	})
}

// cut cuts all connections.
func (e *ends) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		_ = c.Close()
	}
}

// senderOf returns the sender of a node.
func (e *ends) senderOf(t testing.TB, node string) *Sender {
	t.Helper()
	side := e.tls(t, node)
	return &Sender{UID: uid, Node: "n2", Dir: e.from, Cache: &Cache{}, Dial: func(ctx context.Context) (net.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", e.address)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(raw, side.Dial("n2"))
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		if e.wrap != nil {
			return e.wrap(secured), nil
		}
		return secured, nil
	}}
}

// helper is the command that an unconfined rsync runs to reach the other side.
func helper(t testing.TB) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, PipeCommand}
}

// hostile returns a command of an unconfined rsync, as a node that somebody else controls runs it.
func hostile(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := command(t.Context(), "rsync", args...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// copy makes one pass.
func (e *ends) copy(t testing.TB, pass Pass) {
	t.Helper()
	if err := e.sender.Copy(t.Context(), pass); err != nil {
		t.Fatal(err)
	}
}

// compare compares both sides.
func (e *ends) compare(t testing.TB, running bool) *Comparison {
	t.Helper()
	c, err := e.sender.Compare(t.Context(), running)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write writes a file of the original.
func (e *ends) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.from, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
