package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"unicode"

	"github.com/caravanserai/cara/api"
)

//go:embed assets templates
var files embed.FS

// renderer makes HTML of views, and serves the files that the HTML needs.
type renderer struct {
	templates *template.Template
	version   string // of the assets: a page with other assets loads itself again
	logger    *slog.Logger
}

func newRenderer(logger *slog.Logger) (*renderer, error) {
	version, err := assetsVersion()
	if err != nil {
		return nil, err
	}
	templates, err := template.New("").Funcs(funcs()).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	return &renderer{templates, version, logger}, nil
}

// assetsVersion returns a text that differs when an asset or a template differs.
func assetsVersion() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		sum.Write(body)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:12], err
}

// render returns the HTML of a view, and an id that is equal for equal HTML.
func (d *renderer) render(v view) (body []byte, id string, err error) {
	var out bytes.Buffer
	if err := d.templates.ExecuteTemplate(&out, v.template, v.data); err != nil {
		return nil, "", api.Internal("show the view %s: %v", v.template, err)
	}
	body = visible(out.Bytes())
	sum := sha256.Sum256(body)
	return body, d.version + "-" + hex.EncodeToString(sum[:8]), nil
}

// write writes a template that surrounds views. Its data is the server's own or was cleaned before.
func (d *renderer) write(w io.Writer, name string, data any) {
	var out bytes.Buffer
	if err := d.templates.ExecuteTemplate(&out, name, data); err != nil {
		d.logger.Error("a template of the page failed", "template", name, "error", err)
		return
	}
	_, _ = w.Write(visible(out.Bytes())) // the browser may have disconnected
}

// send answers with what write writes.
func (d *renderer) send(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	d.write(w, name, data)
}

// visible removes control characters and the marks that change the direction of text. It works on single characters, so it
// cannot remove a part of the markup.
func visible(html []byte) []byte {
	return bytes.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return c
		case unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c), c == '\u2028', c == '\u2029', c == '\ufeff':
			return -1
		}
		return c
	}, html)
}

// asset serves the script, the styles and the icon. Their address has their version, so browsers may keep them.
func (d *renderer) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	body, err := files.ReadFile("assets/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	w.Header().Set("Content-Type", types[path.Ext(name)])
	if r.URL.Query().Get("v") == d.version {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	_, _ = w.Write(body) // the browser may have disconnected
}
