package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// table is immutable once it is stored.
type table struct {
	projects map[string]*carav1.ProjectPorts
	routes   map[api.PortKey]*route
}

// route is where the connections of one port go.
type route struct {
	project, service string
	port             int32  // of the service
	node, address    string // node that runs the project, and where its agent is reached
	allow            networks.List
}

// newTable joins the ports of projects. While a port changes from one project to another, both can have it, until the table
// has heard about both. Then the first project by name has the port.
func newTable(projects map[string]*carav1.ProjectPorts) *table {
	t := &table{projects: projects, routes: map[api.PortKey]*route{}}
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		of := projects[name]
		for _, port := range of.GetPorts() {
			k := api.KeyOfPort(port)
			if _, taken := t.routes[k]; taken {
				continue
			}
			t.routes[k] = &route{
				project: name, service: port.GetTarget().GetService(), port: port.GetTarget().GetPort(),
				node: of.GetNode(), address: of.GetIngressAddress(), allow: networks.Parse(port.GetAllow()),
			}
		}
	}
	return t
}

const (
	// saveDelay batches changes of the table.
	saveDelay = 100 * time.Millisecond
	// maxTable limits the size of a file that is read.
	maxTable = 64 << 20
)

// restore loads the table of an earlier run, unless the server has already sent one. If the file cannot be read, ports are
// served once the server is back.
func (p *Ports) restore() {
	if p.cfg.File == "" {
		return
	}
	kept, err := readTable(p.cfg.File)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.cfg.Logger.Warn("kept ports not read", "file", p.cfg.File, "error", err)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told {
		p.apply(kept)
	}
}

func readTable(file string) (*carav1.Routes, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTable {
		return nil, fmt.Errorf("it is larger than %d bytes", maxTable)
	}
	routes := &carav1.Routes{}
	return routes, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, routes)
}

// keepSaved writes the table to its file after each change, until ctx ends.
func (p *Ports) keepSaved(ctx context.Context) {
	if p.cfg.File == "" {
		return
	}
	failing := false
	for {
		select {
		case <-p.unsaved:
		case <-ctx.Done():
			select {
			case <-p.unsaved: // write pending changes now
			default:
				return
			}
		}
		select {
		case <-time.After(saveDelay):
		case <-ctx.Done():
		}
		err := p.save()
		if err != nil && !failing {
			p.cfg.Logger.Warn("ports not kept", "file", p.cfg.File, "error", err)
		}
		failing = err != nil
	}
}

func (p *Ports) save() error {
	all := &carav1.Routes{Full: true}
	for _, of := range p.table.Load().projects {
		all.Ports = append(all.Ports, of)
	}
	data, err := protojson.Marshal(all)
	if err != nil {
		return err
	}
	return renameio.WriteFile(p.cfg.File, data, 0o600)
}
