package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A member that cannot be reached is tried again all the time: when etcd is back after a long outage, the store finds it at once. With
// gRPC's own pauses, so many tries take longer than the test waits.
func TestTriesGoOn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var tries atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			tries.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		must(t, listener.Close())
		<-ended
	})
	c, err := connect(t.Context(), Config{Endpoints: []string{"http://" + listener.Addr().String()}}.withDefaults())
	must(t, err)
	t.Cleanup(func() { must(t, c.disconnect()) })
	c.running.Go(func() { _, _ = c.readKey(c.closed, "key") })
	eventually(t, "15 tries", func() bool { return tries.Load() >= 15 })
}

// An error says why the members cannot be connected to: people would look for members that do not run, when a certificate is wrong.
func TestReasonOfNoConnection(t *testing.T) {
	member := httptest.NewUnstartedServer(nil)
	member.EnableHTTP2 = true
	member.StartTLS()
	t.Cleanup(member.Close)
	stranger := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	c, err := connect(t.Context(), Config{Endpoints: []string{member.URL}, TLS: stranger, Timeout: 100 * time.Millisecond}.withDefaults())
	must(t, err)
	t.Cleanup(func() { must(t, c.disconnect()) })
	for name, request := range map[string]func() error{
		"read":  func() error { _, err := c.readKey(t.Context(), "key"); return err },
		"write": func() error { _, err := c.writeIf(t.Context(), missing("key")); return err },
	} {
		eventually(t, "the reason of a "+name, func() bool {
			err := request()
			if err == nil || !Silent(err) {
				t.Fatalf("%s: %v", name, err)
			}
			return strings.Contains(err.Error(), "(transport: authentication handshake failed: tls: failed to verify certificate: ")
		})
	}
}
