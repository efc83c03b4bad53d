package program

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMigrateFromNoStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "typo")
	c := &ServerConfig{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Etcd: EtcdConfig{Endpoints: []string{"http://127.0.0.1:1"}}}
	if _, err := c.Migrate(t.Context(), "pebble:"+dir, "etcd"); err == nil || !strings.Contains(err.Error(), dir+" has no store: give the data directory of a server") {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory was created: %v", err)
	}
}
