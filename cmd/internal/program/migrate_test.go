package program

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSetTarget(t *testing.T) {
	for target, want := range map[string][]string{
		"etcd":                               {"https://flag:2379"},
		"etcd:https://a:2379":                {"https://a:2379"},
		"etcd:https://a:2379,https://b:2379": {"https://a:2379", "https://b:2379"},
		"etcd:":                              nil,
		"etcdX":                              nil,
		"pebble:/var/lib/cara/server":        nil,
	} {
		c := EtcdConfig{Endpoints: []string{"https://flag:2379"}}
		if ok := c.setTarget(target); ok != (want != nil) || ok && !slices.Equal(c.Endpoints, want) {
			t.Errorf("%s: %v, endpoints %q", target, ok, c.Endpoints)
		}
	}
}

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
