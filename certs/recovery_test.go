package certs

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testacme"
	"github.com/caravanserai/cara/store"
)

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// TestAccountLost: if the key of the account is gone or cannot be read, the cluster creates a new account, says so, and gets
// certificates with it.
func TestAccountLost(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(r *rig, kept *carav1.AcmeAccount) []byte // the new value; nil removes the account
		told   string
	}{
		"gone":    {func(*rig, *carav1.AcmeAccount) []byte { return nil }, "account created at the authority"},
		"damaged": {func(r *rig, kept *carav1.AcmeAccount) []byte { return r.encoded(kept, []byte("damaged")) }, unreadableKey},
		"other content": {func(r *rig, kept *carav1.AcmeAccount) []byte {
			conn, err := r.server.Client(api.RoleCerts)
			r.must(err)
			again := proto.CloneOf(kept)
			again.Metadata.ResourceVersion, again.Key = syntax.Everything, []byte("no key")
			_, err = carav1.NewCertificateServiceClient(conn).PutAcmeAccount(r.Context(), again)
			r.must(err)
			kv, err := r.db.Get(r.Context(), state.Key(state.KindAcmeAccount, kept.GetMetadata().GetName()))
			r.must(err)
			return kv.Value
		}, unreadableKey},
	} {
		t.Run(name, func(t *testing.T) {
			logged := &lines{}
			r := newRig(t, func(r *rig, c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(logged, nil))
			})
			https := r.agent("n1", "127.0.0.1")
			r.Lead("old.test", "127.0.0.1")
			r.Lead("new.test", "127.0.0.1")
			r.claim("old", "old.test")
			r.ready("old", api.StatusTrue, "old.test")
			r.stop()
			key := state.Key(state.KindAcmeAccount, accountName(r.Directory, "ops@example.com", ""))
			kv, err := r.db.Get(t.Context(), key)
			r.must(err)
			kept := &carav1.AcmeAccount{}
			r.must(proto.Unmarshal(kv.Value[1:], kept))
			op := store.Op{Key: key, Value: c.damage(r, kept)}
			op.Delete = op.Value == nil
			_, err = r.db.Commit(t.Context(), store.Txn{Do: []store.Op{op}})
			r.must(err)
			logged.text.Reset()
			r.obtain()
			r.claim("new", "new.test")
			r.ready("new", api.StatusTrue, "new.test")
			r.shows(https, "new.test")
			r.shows(https, "old.test")
			if !logged.has(c.told) {
				t.Errorf("the log does not say %q: %s", c.told, &logged.text)
			}
			kv, err = r.db.Get(t.Context(), key)
			r.must(err)
			now := &carav1.AcmeAccount{}
			r.must(proto.Unmarshal(kv.Value[1:], now))
			if now.GetLocation() == kept.GetLocation() {
				t.Errorf("the account is still %s", now.GetLocation())
			}
		})
	}
}

// encoded returns the stored value of an account with another sealed key.
func (r *rig) encoded(a *carav1.AcmeAccount, key []byte) []byte {
	r.Helper()
	a = proto.CloneOf(a)
	a.Key = key
	value, err := proto.Marshal(a)
	r.must(err)
	return append([]byte{state.Encoding}, value...)
}

// TestOtherAuthority: with another authority, such as without --acme-staging, each certificate is replaced. The old one is in
// use until then.
func TestOtherAuthority(t *testing.T) {
	var other *testacme.Authority
	r := newRig(t, func(r *rig, c *Config) {
		if other == nil {
			return
		}
		c.Directory = other.Directory
		text, err := os.ReadFile(other.RootsFile)
		r.must(err)
		c.Roots = x509.NewCertPool()
		c.Roots.AppendCertsFromPEM(text)
	})
	https := r.agent("n1", "127.0.0.1")
	for _, host := range []string{"a.test", "b.test"} {
		r.Lead(host, "127.0.0.1")
	}
	r.claim("shop", "a.test", "b.test")
	r.ready("shop", api.StatusTrue, "b.test: valid until")
	r.ready("shop", api.StatusTrue, "a.test: valid until")
	r.stop()
	other = testacme.Start(t, r.port)
	other.Lead("a.test", "127.0.0.1") // b.test does not lead to the cluster yet, as this authority sees it
	before := r.shows(https, "b.test")
	r.obtain()
	r.await("the other authority's certificate is in use", func() error {
		_, err := r.peek(https, "a.test", other.Roots())
		return err
	})
	r.ready("shop", api.StatusTrue, "b.test: valid until")
	r.ready("shop", api.StatusTrue, "it could not be renewed") // the attempt has ended, so the next one is due within a day
	if now := r.shows(https, "b.test"); now.SerialNumber.Cmp(before.SerialNumber) != 0 {
		t.Error("the certificate was replaced before there was another one")
	}
	other.Lead("b.test", "127.0.0.1")
	r.pass(day)
	r.await("the other authority's certificate is in use", func() error {
		_, err := r.peek(https, "b.test", other.Roots())
		return err
	})
}

// TestAgentDoesNotConfirm: the authority is not asked to validate a host before its agent answers, and the condition names the
// node.
func TestAgentDoesNotConfirm(t *testing.T) {
	r := newRig(t, nil)
	r.mute.Store(true)
	r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusFalse, "the agent of node n1 has not confirmed that it answers the authority's request: check that agent; next try at")
	if strings.Contains(r.Log(), "POST /chalZ/") {
		t.Error("the authority was asked to validate the host")
	}
	r.mute.Store(false)
	r.pass(day)
	r.ready("shop", api.StatusTrue, "app.test")
}
