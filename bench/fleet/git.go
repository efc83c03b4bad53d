package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testserver"
)

// gitServer serves repositories with git's own program. It answers a repeated request from memory, so that thousands of polls cost
// the server under test what they cost it, and not the machine a process of git each.
type gitServer struct {
	front *testserver.Server
	back  *testgit.HTTP
	root  string

	mu    sync.Mutex
	known map[string]answer // by request, until the next push
}

// answer is what git has answered.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// maxRequest limits a request of a git client, in bytes.
const maxRequest = 1 << 20

func openGit(ctx context.Context, dir string) (*gitServer, error) {
	g := &gitServer{root: filepath.Join(dir, "git"), known: map[string]answer{}}
	if err := os.MkdirAll(g.root, 0o755); err != nil {
		return nil, err
	}
	var err error
	if g.back, err = testgit.StartHTTP(ctx, g.root, false); err != nil {
		return nil, err
	}
	g.front, err = testserver.Start(ctx, testserver.Config{Handler: g})
	return g, err
}

// Close ends the server.
func (g *gitServer) Close() error {
	if g.front == nil {
		return g.back.Close()
	}
	return errors.Join(g.front.Close(), g.back.Close())
}

// ServeHTTP answers a request from memory, or lets git answer it.
func (g *gitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Git-Protocol"), r.Header.Get("Content-Encoding"), string(body)}, "\n")
	g.mu.Lock()
	known, ok := g.known[key]
	g.mu.Unlock()
	if !ok {
		if known, err = g.ask(r, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		g.mu.Lock()
		g.known[key] = known
		g.mu.Unlock()
	}
	maps.Copy(w.Header(), known.header)
	w.WriteHeader(known.code)
	_, _ = w.Write(known.body) // a client that has left needs no answer
}

// ask lets git answer a request.
func (g *gitServer) ask(r *http.Request, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, g.back.URL()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	out := answer{code: resp.StatusCode, header: resp.Header}
	out.header.Del("Content-Length")
	out.body, err = io.ReadAll(resp.Body)
	return out, err
}

// forget makes the server ask git again.
func (g *gitServer) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.known)
}

// repository has the manifests of some projects.
type repository struct {
	*testgit.Repo
	source   string
	projects []string
}

// repositories creates the repositories of the projects, at most perSource in each.
func (f *fleet) repositories(ctx context.Context, names []string) error {
	for len(names) > 0 {
		n := min(len(names), f.perSource)
		r := &repository{source: fmt.Sprintf("source-%d", len(f.repos)), projects: names[:n]}
		names = names[n:]
		var err error
		if r.Repo, err = testgit.Create(ctx, f.git.root, r.source); err != nil {
			return err
		}
		f.repos = append(f.repos, r)
		if err := f.declare(ctx, r, firstImage, r.projects...); err != nil {
			return err
		}
		if _, err := r.Git(ctx, "--git-dir", r.Bare, "gc", "--quiet"); err != nil {
			return err
		}
	}
	return nil
}

const firstImage = "registry.example.com/web:1"

// declare writes projects with an image, and pushes them.
func (f *fleet) declare(ctx context.Context, r *repository, image string, projects ...string) error {
	for i, name := range projects {
		of := image
		if image != firstImage {
			of = fmt.Sprintf("%s-%d", image, i)
		}
		if err := r.Write(fmt.Sprintf("team-%s/%s.yaml", name[len(name)-min(2, len(name)):], name), f.manifest(name, of)); err != nil {
			return err
		}
	}
	if _, err := r.Commit(ctx, "Set the image "+image); err != nil {
		return err
	}
	err := r.Push(ctx)
	f.git.forget()
	return err
}

// manifest is a project with one service, in JSON, which is YAML, too.
func (f *fleet) manifest(name, image string) string {
	ingress := ""
	if f.ingress {
		ingress = fmt.Sprintf(`,"ingress":[{"name":"web","host":%q,"target":{"service":"web","port":80}}]`, name)
	}
	return fmt.Sprintf(`{"apiVersion":%q,"kind":"Project","metadata":{"name":%q},"spec":{"services":[{"name":"web","image":%q}]%s}}`,
		api.APIVersion, name, image, ingress)
}

// source creates a source.
func (f *fleet) source(ctx context.Context, name, repo, path, interval string) error {
	_, err := carav1.NewSourceServiceClient(f.conn).CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.SourceSpec{Interval: interval, Path: path, AllowEmpty: true, Git: &carav1.GitSource{Url: f.git.front.URL() + "/" + repo + ".git"}},
	}})
	return err
}
