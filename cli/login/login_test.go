package login

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

func TestTarget(t *testing.T) {
	const prod, dev = "https://prod.example.com:8080", "http://127.0.0.1:8080"
	all := access.Contexts{Current: "cara-1", Contexts: map[string]access.Context{
		"cara-1": {Server: dev, TokenFile: "/admin.token", CA: "dev-ca"},
		"prod":   {Server: prod, Login: true, Token: "old", CA: "prod-ca"},
		"prod-2": {Server: prod, Login: true},
		"b":      {Server: "https://b.example.com", Token: "t"},
	}}
	tests := map[string]struct {
		name, server string
		want         string // name, server and authority
		err          string
	}{
		"the current server, whose token stays": {want: "127.0.0.1 " + dev + " dev-ca"},
		"an earlier login":                      {server: prod, want: "prod " + prod + " prod-ca"},
		"a chosen login":                        {name: "prod-2", want: "prod-2 " + prod + " prod-ca"},
		"a new server":                          {server: "https://new.example.com,https://n2:1", want: "new.example.com https://new.example.com,https://n2:1 "},
		"a new name":                            {name: "mine", server: prod, want: "mine " + prod + " prod-ca"},
		"a new name without a server":           {name: "mine", err: `there is no context "mine": give --server URL`},
		"a token":                               {name: "b", err: "has a token, which a login would replace"},
		"another server":                        {name: "prod", server: dev, err: `context "prod" is for ` + prod},
		"no address":                            {server: "cara.example.com", err: "is not an address"},
	}
	for name, tt := range tests {
		got, c, err := Target(all, tt.name, tt.server)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", name, err, tt.err)
			}
			continue
		}
		if text := got + " " + c.Server + " " + c.CA; err != nil || text != tt.want || !c.Login || c.Token != "" || c.TokenFile != "" {
			t.Errorf("%s: %q, %+v, %v; want %q without a token", name, text, c, err, tt.want)
		}
	}
	if _, _, err := Target(access.Contexts{}, "", ""); err == nil || !strings.Contains(err.Error(), "give --server URL") {
		t.Errorf("without any context: %v", err)
	}
}

// Only the browser that has the state brings something, and only the first thing counts.
func TestReceive(t *testing.T) {
	back := make(chan brought, 1)
	h := receive("right", back)
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	for _, bad := range [][2]string{{"GET", "/?code=c"}, {"GET", "/?code=c&state=wrong"}, {"GET", "/x?code=c&state=right"}, {"POST", "/?code=c&state=right"}} {
		if w := ask(bad[0], bad[1]); w.Code != http.StatusNotFound || len(back) != 0 {
			t.Errorf("%s %s: %d, and %d are taken", bad[0], bad[1], w.Code, len(back))
		}
	}
	for target, want := range map[string]brought{
		"/?code=c&state=right":             {code: "c"},
		"/?state=right":                    {reason: "the page has sent no code"},
		"/?state=right&error=no%1b%5b31m!": {reason: "no[31m!"},
	} {
		ask("GET", target)
		ask("GET", "/?code=second&state=right")
		if got := <-back; got != want {
			t.Errorf("%s brings %q, want %q", target, got, want)
		}
	}
}

func TestNobodyLogsIn(t *testing.T) {
	var shown strings.Builder
	_, err := Terminal{Err: &shown, Server: "http://127.0.0.1:1/", Limit: time.Millisecond}.InBrowser(t.Context())
	if !errors.Is(err, errLate) || !strings.Contains(shown.String(), "  http://127.0.0.1:1/ui/login/caractrl?challenge=") {
		t.Errorf("got %v, want %v:\n%s", err, errLate, shown.String())
	}
}

// The browser of the machine gets the address. Without a screen there is none.
func TestBrowser(t *testing.T) {
	dir := t.TempDir()
	opened := filepath.Join(dir, "opened")
	script := "#!/bin/sh\nprintf %s \"$1\" > " + opened + ".new && mv " + opened + ".new " + opened + "\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "xdg-open"), filepath.Join(dir, "open")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":0")
	open := Browser()
	if open == nil {
		t.Fatal("no browser is found")
	}
	open("http://127.0.0.1:1/?a=b&c=d")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := testcluster.WaitFor(ctx, "the browser has the address", func(context.Context) error {
		got, err := os.ReadFile(opened)
		if err == nil && string(got) != "http://127.0.0.1:1/?a=b&c=d" {
			err = testcluster.Fatal(errors.New(string(got)))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if Browser() != nil {
		t.Error("a browser is found where there is no program")
	}
}
