package testgit

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testserver"
)

const maxPush = 256 << 20

// HTTP serves every repository below a root with git's smart protocol, for reading and pushing. The embedded server has
// Addr, URL, Down, Up, Delay, Totals, Log, Reset and Close.
type HTTP struct {
	*testserver.Server
	// CA is the PEM certificate that clients must trust; empty without TLS.
	CA []byte

	root    string
	backend string // path of git-http-backend

	mu       sync.Mutex
	user     string // empty if no login is required
	password string
	fault    Fault
}

// Fault is a fault of the server. The zero value has no fault.
type Fault struct {
	Status   int    // answers every request with this
	Location string // sent along with Status: a redirect
	Hang     bool   // accepts requests and never answers
	CutAfter int64  // breaks the connection after that many bytes of an answer
}

// ServeHTTP serves root for a test, optionally with TLS.
func ServeHTTP(tb testing.TB, root string, withTLS bool) *HTTP {
	tb.Helper()
	testneed.Program(tb, "git", "git")
	h, err := StartHTTP(tb.Context(), root, withTLS)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	return h
}

// StartHTTP is ServeHTTP for programs, which must call Close.
func StartHTTP(ctx context.Context, root string, withTLS bool) (*HTTP, error) {
	libexec, err := git(ctx, root, nil, "--exec-path")
	if err != nil {
		return nil, err
	}
	h := &HTTP{root: root, backend: filepath.Join(libexec, "git-http-backend")}
	var config *tls.Config
	if withTLS {
		if config, h.CA, err = testserver.Certificate(); err != nil {
			return nil, err
		}
	}
	h.Server, err = testserver.Start(ctx, testserver.Config{Handler: http.HandlerFunc(h.answer), TLS: config})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// RepoURL returns the clone URL of a repository.
func (h *HTTP) RepoURL(name string) string { return h.URL() + "/" + name + ".git" }

// Login requires this user and password (basic authentication). An empty user requires no login.
func (h *HTTP) Login(user, password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.user, h.password = user, password
}

// Set sets the fault of all later requests.
func (h *HTTP) Set(fault Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = fault
}

func (h *HTTP) answer(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	fault, user, password := h.fault, h.user, h.password
	h.mu.Unlock()
	givenUser, givenPassword, _ := r.BasicAuth()
	switch {
	case fault.Hang:
		<-r.Context().Done()
		return
	case fault.Status != 0:
		if fault.Location != "" {
			w.Header().Set("Location", fault.Location)
		}
		http.Error(w, "test git server: "+http.StatusText(fault.Status), fault.Status)
		return
	case user != "" && subtle.ConstantTimeCompare([]byte(givenUser+"\x00"+givenPassword), []byte(user+"\x00"+password)) != 1:
		w.Header().Set("WWW-Authenticate", `Basic realm="cara test git server"`)
		http.Error(w, "log in", http.StatusUnauthorized)
		return
	case strings.HasPrefix(r.URL.Path, "/."):
		http.NotFound(w, r) // the work trees are not served
		return
	case fault.CutAfter > 0:
		w = &cuttingWriter{ResponseWriter: w, left: fault.CutAfter}
	}
	if err := wholeBody(w, r); err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	h.cgi(r).ServeHTTP(w, r)
}

func (h *HTTP) cgi(r *http.Request) *cgi.Handler {
	env := append(environment(), "GIT_PROJECT_ROOT="+h.root, "GIT_HTTP_EXPORT_ALL=1")
	if protocol := r.Header.Get("Git-Protocol"); protocol != "" {
		env = append(env, "GIT_PROTOCOL="+protocol) // older http-backends ignore the header
	}
	return &cgi.Handler{
		Path:   h.backend,
		Dir:    h.root,
		Env:    env,
		Logger: log.New(io.Discard, "", 0), // a test may cut connections
		Stderr: io.Discard,
	}
}

// wholeBody reads a chunked body to its end, because CGI needs the length first.
func wholeBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength >= 0 {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return nil
}

// cuttingWriter aborts the connection in the middle of an answer.
type cuttingWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cuttingWriter) Write(p []byte) (int, error) {
	if int64(len(p)) <= w.left {
		w.left -= int64(len(p))
		return w.ResponseWriter.Write(p)
	}
	if _, err := w.ResponseWriter.Write(p[:w.left]); err != nil {
		return 0, err
	}
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		return 0, err
	}
	panic(http.ErrAbortHandler)
}

func (w *cuttingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
