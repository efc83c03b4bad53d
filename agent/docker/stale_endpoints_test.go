package docker

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// staleNetworkEngine is an engine that keeps stale endpoints on a network. Its responses are those of Docker 20.10.
type staleNetworkEngine struct {
	endpoints  map[string]network.EndpointResource // that it shows
	there      []string                            // ids of containers
	hidden     bool                                // it counts one more, and does not show it
	disconnect []string                            // names that were disconnected by force
	removed    bool
}

func (g *staleNetworkEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	path := r.URL.Path[strings.Index(r.URL.Path[1:], "/")+1:] // without the version
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
	case path == "/networks/n1" && r.Method == http.MethodGet:
		reply(w, network.Inspect{ID: "n1", Name: "cara-p", Containers: g.endpoints})
	case path == "/networks/n1" && r.Method == http.MethodDelete:
		if len(g.endpoints) > 0 || g.hidden {
			w.WriteHeader(http.StatusForbidden)
			reply(w, map[string]string{"message": "error while removing network: network cara-p id n1 has active endpoints"})
			return
		}
		g.removed = true
		w.WriteHeader(http.StatusNoContent)
	case path == "/networks/n1/disconnect":
		var req network.DisconnectOptions
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &req) != nil || !req.Force {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		g.disconnect = append(g.disconnect, req.Container)
		for key, ep := range g.endpoints {
			if ep.Name == req.Container {
				delete(g.endpoints, key)
			}
		}
	case path == "/containers/json":
		list := []container.Summary{}
		for _, id := range g.there {
			if strings.Contains(r.URL.RawQuery, id) {
				list = append(list, container.Summary{ID: id})
			}
		}
		reply(w, list)
	default:
		w.WriteHeader(http.StatusTeapot)
	}
}

func reply(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // a client that went has no use for it
}

func TestRemoveBusyNetwork(t *testing.T) {
	ghost, guest := network.EndpointResource{Name: "cara-p.a"}, network.EndpointResource{Name: "guest"}
	for name, c := range map[string]struct {
		engine     staleNetworkEngine
		disconnect []string
		err        string // none: the network goes
	}{
		"nothing is on it": {},
		"an endpoint without a container": {
			engine: staleNetworkEngine{endpoints: map[string]network.EndpointResource{"ep-1": ghost}}, disconnect: []string{"cara-p.a"},
		},
		"an endpoint of a container that is gone": {
			engine: staleNetworkEngine{endpoints: map[string]network.EndpointResource{"c0ffee": ghost}}, disconnect: []string{"cara-p.a"},
		},
		"somebody's container": {
			engine: staleNetworkEngine{endpoints: map[string]network.EndpointResource{"ep-1": ghost, "beef": guest}, there: []string{"beef"}}, disconnect: []string{"cara-p.a"},
			err: "remove network cara-p: it is in use by guest: docker network disconnect -f cara-p CONTAINER lets it go",
		},
		"what the engine does not show": {
			engine: staleNetworkEngine{hidden: true}, err: "names no container: restart the engine, which forgets them",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(&c.engine)
			defer server.Close()
			e, err := New(Config{Host: "tcp://" + server.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			err = e.RemoveNetwork(t.Context(), "n1")
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if c.engine.removed != (c.err == "") || !slices.Equal(c.engine.disconnect, c.disconnect) {
				t.Errorf("removed: %t, disconnected %v", c.engine.removed, c.engine.disconnect)
			}
		})
	}
}
