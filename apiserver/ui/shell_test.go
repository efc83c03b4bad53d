package ui_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
)

// A shell is opened only by the page itself, with the rights of the API, and is used only by the session that opened it.
func TestShellIsRefused(t *testing.T) {
	s := newSite(t)
	s.put(t, node("n1"), project("shop"))
	admin, viewer := s.login(t, s.token), s.login(t, s.newToken(t, "ada", api.RoleViewer, ""))
	if body := read(t, s.get(t, viewer, "/ui/projects/shop", nil)); strings.Contains(body, "/shell") {
		t.Error("the page offers a shell to a viewer")
	}
	if body := read(t, s.get(t, admin, "/ui/projects/shop", nil)); !strings.Contains(body, "/ui/projects/shop/shell?service=app") {
		t.Error("the page offers no shell to an administrator")
	}
	for name, tt := range map[string]struct {
		in     *http.Client
		path   string
		header http.Header
		want   int
	}{
		"another page":   {admin, "/ui/shell/shop?service=app", http.Header{"Sec-Fetch-Site": {"cross-site"}}, http.StatusForbidden},
		"another origin": {admin, "/ui/shell/shop?service=app", http.Header{"Origin": {"http://evil.example"}}, http.StatusForbidden},
		"a viewer":       {viewer, "/ui/shell/shop?service=app", nil, http.StatusForbidden},
		"nobody":         {client(t), "/ui/shell/shop?service=app", nil, http.StatusSeeOther},
		"no agent":       {admin, "/ui/shell/shop?service=app", nil, http.StatusServiceUnavailable},
		"no service":     {admin, "/ui/shell/shop?service=nosuch", nil, http.StatusBadRequest},
		"no shell":       {admin, "/ui/shell/shop/nosuch", nil, http.StatusNotFound},
	} {
		resp := s.post(t, tt.in, tt.path, nil, tt.header)
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %s, want %d\n%s", name, resp.Status, tt.want, read(t, resp))
		}
	}
}

// The terminal is xterm.js as its authors published it (@xterm/xterm 6.0.0, @xterm/addon-fit 0.11.0), without the reference to a
// source map.
func TestVendoredTerminal(t *testing.T) {
	for name, want := range map[string]string{
		"xterm.mjs":     "3fd3d0046d2604ea5860235e2f96625a2fab158dcf3d4cfb0f7c1655559a5d9a",
		"xterm-fit.mjs": "aa22c5f28e4d64118ac0e7d60276b3384188e59dd104c96e43760d6e2cedd771",
		"xterm.css":     "854a7c0fb70e8b1a083c16797ab827299fb18744f5ad34f227b48337e33293c6",
		"xterm.LICENSE": "b569f629d00f2626a8100df2a1798210535621e42164dfd426a6fe5aac7b0ccd",
	} {
		body, err := os.ReadFile("assets/" + name)
		must(t, err)
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != want {
			t.Errorf("assets/%s has the hash %x, want %s", name, sum, want)
		}
	}
}
