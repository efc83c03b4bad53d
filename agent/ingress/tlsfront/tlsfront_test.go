package tlsfront

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
)

func TestTable(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	var table Table
	put := func(id string, life time.Duration, names ...string) {
		t.Helper()
		chain, key, err := ca.Site(time.Now().Add(life), names...)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Put(&carav1.Certificate{Id: id, Names: names, Chain: chain, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	finds := func(what string, want map[string]string) {
		t.Helper()
		for name, id := range want {
			got := ""
			for have, e := range table.byID {
				if e.certificate == table.Find(name) {
					got = have
				}
			}
			if got != id {
				t.Errorf("%s: %s has %q, want %q", what, name, got, id)
			}
		}
	}
	put("exact", time.Hour, "a.test", "B.test")
	put("wild", 3*time.Hour, "*.test")
	finds("an exact name comes first", map[string]string{"a.test": "exact", "b.test": "exact", "c.test": "wild", "test": "", "x.a.test": "", "": "", "*.test": "wild"})
	put("longer", 2*time.Hour, "a.test")
	finds("the one that ends later", map[string]string{"a.test": "longer", "b.test": "exact"})
	put("exact", 4*time.Hour, "a.test")
	finds("replaced, with fewer names", map[string]string{"a.test": "exact", "b.test": "wild"})
	table.Remove("exact")
	table.Remove("wild")
	table.Remove("nothing")
	finds("removed", map[string]string{"a.test": "longer", "b.test": ""})
	if err := table.Put(&carav1.Certificate{Id: "longer", Names: []string{"a.test"}, Chain: []byte("no"), Key: []byte("no")}); err == nil {
		t.Error("a damaged certificate is accepted")
	}
	finds("a damaged one replaces nothing", map[string]string{"a.test": "longer"})
	table.Remove("longer")
	if len(table.byID)+len(table.byName) > 0 {
		t.Errorf("left over: %v %v", table.byID, table.byName)
	}
}

// TestTicketKeysChange: the key of a session ticket is gone after a week, so there are new keys.
func TestTicketKeysChange(t *testing.T) {
	var table Table
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Site(time.Now().Add(time.Hour), "a.test")
	if err == nil {
		err = table.Put(&carav1.Certificate{Id: "a", Names: []string{"a.test"}, Chain: chain, Key: key})
	}
	if err != nil {
		t.Fatal(err)
	}
	config, begun := table.Config(), time.Now()
	now := begun
	config.Time = func() time.Time { return now }
	var ticket []byte
	var of tls.ConnectionState
	config.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) (_ []byte, err error) {
		of = state
		ticket, err = config.EncryptTicket(state, session)
		return ticket, err
	}
	client, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, config).HandshakeContext(t.Context()) }()
	secured := tls.Client(client, &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
	if err := errors.Join(secured.HandshakeContext(t.Context()), <-done, client.Close(), server.Close()); err != nil || ticket == nil {
		t.Fatalf("no ticket: %v", err)
	}
	for _, step := range []struct {
		after time.Duration
		works bool
	}{{0, true}, {25 * time.Hour, true}, {6 * 24 * time.Hour, true}, {9 * 24 * time.Hour, false}} {
		now = begun.Add(step.after)
		state, err := config.DecryptTicket(ticket, of)
		if err != nil || (state != nil) != step.works {
			t.Errorf("after %s: %v, %v", step.after, state, err)
		}
	}
}

// BenchmarkFind finds a certificate among others.
func BenchmarkFind(b *testing.B) {
	ca, err := testca.New()
	if err != nil {
		b.Fatal(err)
	}
	chain, key, err := ca.Site(time.Now().Add(time.Hour), "a.test")
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var table Table
			for i := range n {
				if err := table.Put(&carav1.Certificate{Id: fmt.Sprint(i), Names: []string{fmt.Sprintf("h%d.test", i)}, Chain: chain, Key: key}); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if table.Find("h0.test") == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
