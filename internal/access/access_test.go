package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContextsAreKeptForTheUserAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cara", "contexts.json")
	if err := Put(file, "prod", Context{Server: "https://a:1", Token: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := Put(file, "local", Context{Server: "http://127.0.0.1:8080"}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil || c.Current != "local" || c.Contexts["prod"].Token != "t" {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := Use(file, "prod"); err != nil {
		t.Fatal(err)
	}
	if err := Use(file, "nope"); err == nil {
		t.Error("a context that is not there was taken")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestDialRefuses(t *testing.T) {
	tests := map[string]struct {
		ctx  Context
		want string
	}{
		"a token in clear over the network": {Context{Server: "http://192.0.2.1:8080"}, "use https"},
		"no URL":                            {Context{Server: "localhost:8080"}, "is no URL"},
		"a CA that is none":                 {Context{Server: "https://a", CA: "x"}, "no PEM certificate"},
		"a token file that is not there":    {Context{Server: "http://127.0.0.1:1", TokenFile: "/nonexistent/t"}, "read token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Dial(tt.ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
