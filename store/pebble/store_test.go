package pebble

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openTest opens a store that is closed at the end of the test.
func openTest(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = "data"
		cfg.FS = vfs.NewMem()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestContractOnDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openTest(t, Config{Dir: t.TempDir()}) })
}

func TestContractInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openTest(t, Config{}) })
}

func TestContractWithHoles(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.WithHoles(openTest(t, Config{})) })
}
