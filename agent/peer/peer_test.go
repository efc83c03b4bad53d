package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testca"
)

func authority(t *testing.T) *testca.Authority {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// side is an end of a connection with this certificate, that trusts this authority.
func side(ca *testca.Authority, certificate tls.Certificate, err error) func(t *testing.T) TLS {
	return func(t *testing.T) TLS {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return certificate, ca.Pool() }}
	}
}

// pair are the two ends of a TCP connection.
func pair(t *testing.T) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if dialled, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(dialled.Close(), accepted.Close()) })
	deadline := time.Now().Add(30 * time.Second)
	if err := errors.Join(dialled.SetDeadline(deadline), accepted.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

// meet runs a handshake, and returns the node that the listening end has verified.
func meet(t *testing.T, dial, accept *tls.Config) (node string, dialErr, acceptErr error) {
	t.Helper()
	a, b := pair(t)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		s := tls.Server(b, accept)
		if acceptErr = s.Handshake(); acceptErr == nil {
			state := s.ConnectionState()
			node = new(TLS).Node(&state)
			_, acceptErr = s.Write([]byte("x"))
		}
		_ = b.Close()
	}()
	c := tls.Client(a, dial)
	if dialErr = c.Handshake(); dialErr == nil {
		_, dialErr = io.ReadFull(c, make([]byte, 1)) // in TLS 1.3 it is here that a client hears of a refusal
	}
	_ = a.Close()
	<-accepted
	return node, dialErr, acceptErr
}

// TestWhoIsAPeer: only nodes of the same cluster are accepted, by their names.
func TestWhoIsAPeer(t *testing.T) {
	ours, others := authority(t), authority(t)
	node := func(ca *testca.Authority, name string) func(*testing.T) TLS {
		certificate, err := ca.Node(name)
		return side(ca, certificate, err)
	}
	signed := func(name string, usage x509.ExtKeyUsage, from, to time.Duration) func(*testing.T) TLS {
		certificate, err := ours.Sign(name, usage, time.Now().Add(from), time.Now().Add(to))
		return side(ours, certificate, err)
	}
	n1, n2 := node(ours, "n1"), node(ours, "n2")
	const hour = time.Hour
	for name, tt := range map[string]struct {
		dials, accepts func(*testing.T) TLS
		want           string // the node that is dialled
		dialErr        string
		acceptErr      string
	}{
		"the node that was named":       {n1, n2, "n2", "", ""},
		"another node of the cluster":   {n1, n2, "n3", `node "n2" and not of node "n3"`, "bad certificate"},
		"the dialling node itself":      {n1, n1, "n2", `node "n1" and not of node "n2"`, "bad certificate"},
		"the server's certificate":      {n1, signed("cara-server", x509.ExtKeyUsageServerAuth, -hour, hour), "n2", "not an agent of this cluster", "bad certificate"},
		"a node's name for a server":    {n1, signed("node/n2", x509.ExtKeyUsageServerAuth, -hour, hour), "n2", "not an agent of this cluster", "bad certificate"},
		"no node's name":                {n1, signed("n2", x509.ExtKeyUsageClientAuth, -hour, hour), "n2", "names no node", "bad certificate"},
		"a certificate that has ended":  {n1, signed("node/n2", x509.ExtKeyUsageClientAuth, -2*hour, -hour), "n2", "expired", "bad certificate"},
		"a node of another cluster":     {n1, node(others, "n2"), "n2", "unknown authority", "bad certificate"},
		"a dialler of another cluster":  {node(others, "n1"), n2, "n2", "unknown authority", "bad certificate"},
		"a dialler that is the server":  {signed("cara-server", x509.ExtKeyUsageServerAuth, -hour, hour), n2, "n2", "bad certificate", "not an agent of this cluster"},
		"a dialler whose name has gone": {signed("node/", x509.ExtKeyUsageClientAuth, -hour, hour), n2, "n2", "bad certificate", "names no node"},
	} {
		t.Run(name, func(t *testing.T) {
			got, dialErr, acceptErr := meet(t, tt.dials(t).Dial(tt.want), tt.accepts(t).Accept())
			if tt.dialErr == "" && tt.acceptErr == "" {
				if dialErr != nil || acceptErr != nil || got != "n1" {
					t.Errorf("the listening side took the other for %q (%v, %v), want n1", got, dialErr, acceptErr)
				}
				return
			}
			for _, e := range []struct {
				err  error
				want string
			}{{dialErr, tt.dialErr}, {acceptErr, tt.acceptErr}} {
				if e.err == nil || !strings.Contains(e.err.Error(), e.want) {
					t.Errorf("got %v, want %q", e.err, e.want)
				}
			}
			if got != "" {
				t.Errorf("a peer was taken for %q", got)
			}
		})
	}
}

// TestNobodyWithoutACertificate: a client without a certificate is rejected.
func TestNobodyWithoutACertificate(t *testing.T) {
	ca := authority(t)
	certificate, err := ca.Node("n2")
	_, dialErr, acceptErr := meet(t, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, side(ca, certificate, err)(t).Accept())
	if dialErr == nil || acceptErr == nil {
		t.Errorf("got %v and %v, want a refusal", dialErr, acceptErr)
	}
}

// TestARenewedCertificateIsUsedAtTheNextHandshake by both ends, with configurations that were made before.
func TestARenewedCertificateIsUsedAtTheNextHandshake(t *testing.T) {
	ca := authority(t)
	current := map[string]tls.Certificate{}
	renew := func(node string) tls.Certificate {
		certificate, err := ca.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		current[node] = certificate
		return certificate
	}
	end := func(node string) TLS {
		return TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return current[node], ca.Pool() }}
	}
	renew("n1")
	renew("n2")
	listens, dials := end("n2").Accept(), end("n1")
	for range 2 {
		one, two := renew("n1"), renew("n2")
		var seen [2]*x509.Certificate
		dial, accept := dials.Dial("n2"), listens.Clone()
		for n, config := range []*tls.Config{dial, accept} {
			verify := config.VerifyConnection
			config.VerifyConnection = func(state tls.ConnectionState) error {
				seen[n] = state.PeerCertificates[0]
				return verify(state)
			}
		}
		_, dialErr, acceptErr := meet(t, dial, accept)
		if err := errors.Join(dialErr, acceptErr); err != nil {
			t.Fatal(err)
		}
		if !seen[0].Equal(two.Leaf) || !seen[1].Equal(one.Leaf) {
			t.Error("an end presented a certificate that was renewed before the handshake")
		}
	}
}

func TestNodeOfAPlainConnection(t *testing.T) {
	if got := new(TLS).Node(nil); got != "" {
		t.Errorf("a connection without TLS is of node %q", got)
	}
}

// TestMembers: a certificate counts as long as the server accepts it, at both ends and on connections that are open.
func TestMembers(t *testing.T) {
	ca := authority(t)
	end := func(node string, members map[string]time.Time) TLS {
		certificate, err := ca.Node(node)
		own := side(ca, certificate, err)(t)
		own.Members = &Members{}
		own.Members.Set(members)
		return own
	}
	certificate, err := ca.Node("n1")
	if err != nil {
		t.Fatal(err)
	}
	began := certificate.Leaf.NotBefore
	for name, tt := range map[string]struct {
		members map[string]time.Time
		refused string
	}{
		"as it joined":               {map[string]time.Time{"n1": began, "n2": began}, ""},
		"renewed since":              {map[string]time.Time{"n1": began.Add(-time.Hour), "n2": began}, ""},
		"deleted":                    {map[string]time.Time{"n2": began}, `accepts no certificate of node "n1"`},
		"joined again":               {map[string]time.Time{"n1": began.Add(time.Hour), "n2": began}, `node "n1" has joined again since this certificate was issued`},
		"a server that tells nobody": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			listens := end("n2", tt.members)
			_, _, acceptErr := meet(t, end("n1", nil).Dial("n2"), listens.Accept())
			_, dialErr, _ := meet(t, listens.Dial("n1"), end("n1", nil).Accept())
			open := listens.Node(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate.Leaf}})
			if tt.refused == "" {
				if acceptErr != nil || dialErr != nil || open != "n1" {
					t.Errorf("refused: %v, %v; an open connection is of %q", acceptErr, dialErr, open)
				}
				return
			}
			for _, err := range []error{acceptErr, dialErr} {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("got %v, want %q", err, tt.refused)
				}
			}
			if open != "" {
				t.Errorf("an open connection is still of node %q", open)
			}
		})
	}
}
