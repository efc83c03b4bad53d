package program

import (
	"bytes"
	"sync"

	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/etcd"
)

// etcdDirectory is the directory in etcd, with descriptions of servers.
type etcdDirectory struct {
	*etcd.Directory
	descriptions descriptions
}

var _ directory.Directory = (*etcdDirectory)(nil)

// Servers returns the servers that run, by ID.
func (d *etcdDirectory) Servers() map[string]*carav1.Server {
	return d.descriptions.decode(d.Directory.Servers())
}

// Holder returns which server has the newest session of a node's agent.
func (d *etcdDirectory) Holder(node string) (directory.Holder, bool) {
	h, ok := d.Directory.Holder(node)
	return directory.Holder(h), ok
}

// descriptions decodes what servers say about themselves. It decodes each description once, because heartbeats of agents read them.
type descriptions struct {
	mu      sync.Mutex
	decoded map[string]description // of the last call, by ID
}

type description struct {
	data   []byte
	server *carav1.Server // immutable
}

// decode returns the servers of these descriptions, by ID.
func (d *descriptions) decode(all map[string][]byte) map[string]*carav1.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	decoded, servers := make(map[string]description, len(all)), make(map[string]*carav1.Server, len(all))
	for id, data := range all {
		one, ok := d.decoded[id]
		if !ok || !bytes.Equal(one.data, data) {
			one = description{data, decode(data)}
			one.server.Id = id
		}
		decoded[id], servers[id] = one, one.server
	}
	d.decoded = decoded
	return servers
}
