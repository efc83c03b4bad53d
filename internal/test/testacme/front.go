package testacme

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
)

// Front is another address of an authority, at which a test can hold answers on their way back.
type Front struct {
	// Directory is the URL for --acme-directory. The certificate of the authority's own HTTPS server is also the front's.
	Directory string

	mu   sync.Mutex
	path string
	held chan struct{}
}

// Front returns a front, which ends with the test.
func (a *Authority) Front() *Front {
	a.tb.Helper()
	pair, err := tls.LoadX509KeyPair(a.RootsFile, filepath.Join(a.dir, "server.key"))
	a.must(err)
	to, err := url.Parse(strings.TrimSuffix(a.Directory, "/dir"))
	a.must(err)
	proxy := &httputil.ReverseProxy{Transport: a.client.Transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host // the authority's answers have the URLs of the front
	}}
	f := &Front{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // so that the end of the client is noticed
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if held := f.holds(r.URL.Path); held != nil {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			close(held)
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	a.tb.Cleanup(s.Close)
	f.Directory = s.URL + "/dir"
	return f
}

// Hold makes the next request whose path begins with path reach the authority, and its client wait for the answer until the
// client ends. The channel is closed when the client waits.
func (f *Front) Hold(path string) (held <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.path, f.held = path, make(chan struct{})
	return f.held
}

func (f *Front) holds(path string) chan<- struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" || !strings.HasPrefix(path, f.path) {
		return nil
	}
	f.path = ""
	return f.held
}
