package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	"github.com/caravanserai/cara/gen/jsonschema"
	"github.com/caravanserai/cara/gen/openapi"
)

// pages adds the pages outside the API. Health and the API description are public. Metrics require a role that may read.
func (s *server) pages(mux *http.ServeMux) {
	get := func(path string, h http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				wrongMethod(w, r, http.MethodGet)
				return
			}
			h(w, r)
		})
	}
	get("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, "ok\n") })
	get("/readyz", s.ready)
	get("/openapi.json", func(w http.ResponseWriter, _ *http.Request) { writePage(w, contentJSON, openapi.JSON) })
	get("/schemas/", schema)
	mux.HandleFunc("POST /api/v1/sources/{name}/webhook", s.webhook)
	s.streamPages(mux)
	get("/metrics", s.Metrics.ServeHTTP)
}

// ready reports whether the server answers calls now, and whether the store can write.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.DB.Draining:
		WriteProblem(w, api.ProblemOf(state.ErrDraining()))
		return
	default:
	}
	select {
	case <-s.DB.Cache.Loaded:
	default:
		WriteProblem(w, api.ProblemOf(api.Unavailable("the server is still reading its store")))
		return
	}
	if st, ok := s.DB.Store.(healthy); ok {
		if err := st.Err(); err != nil {
			WriteProblem(w, api.ProblemOf(api.Unavailable("the store is not well: %v", err)))
			return
		}
	}
	writeText(w, "ok\n")
}

// healthy is a store that knows in advance that it cannot write.
type healthy interface {
	// Err returns nil while the store works, else an error that says what to do.
	Err() error
}

// schema serves one JSON Schema of the manifests: /schemas/project.json, or /schemas/manifest.json for files with any kind.
func schema(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/schemas/")
	body, err := fs.ReadFile(jsonschema.Files, name)
	if err != nil && !strings.Contains(name, ".schema.") {
		body, err = fs.ReadFile(jsonschema.Files, strings.TrimSuffix(name, ".json")+".schema.json")
	}
	if err != nil {
		WriteProblem(w, noRoute(r))
		return
	}
	// Editors ask again and again.
	sum := sha256.Sum256(body)
	w.Header().Set("ETag", fmt.Sprintf("%q", hex.EncodeToString(sum[:16])))
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("Content-Type", "application/schema+json")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func writeText(w http.ResponseWriter, text string) {
	writePage(w, "text/plain; charset=utf-8", []byte(text))
}

func writePage(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) // the client may have disconnected
}
