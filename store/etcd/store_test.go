package etcd

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var prefixes atomic.Int64

// openTest opens a store below a prefix of its own, unless cfg names one. It is closed at the end of the test.
func openTest(tb testing.TB, c *testetcd.Cluster, cfg Config) *Store {
	tb.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = fmt.Sprintf("/test-%d/", prefixes.Add(1))
	}
	if cfg.Endpoints == nil {
		cfg.Endpoints = c.Endpoints
	}
	if cfg.TLS == nil {
		cfg.TLS = c.TLSConfig()
	}
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			c := testetcd.Start(t, testetcd.Config{Program: program})
			storetest.Run(t, func(t *testing.T) store.Store { return openTest(t, c, Config{}) })
		})
	}
}
