package program

import (
	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/etcd"
)

// inEtcd is the directory in etcd, with descriptions of servers.
type inEtcd struct {
	*etcd.Directory
}

var _ directory.Directory = inEtcd{}

// Servers returns the servers that run, by ID.
func (d inEtcd) Servers() map[string]*carav1.Server {
	all := map[string]*carav1.Server{}
	for id, data := range d.Directory.Servers() {
		all[id] = decode(data)
		all[id].Id = id
	}
	return all
}

// Holder returns which server has the newest session of a node's agent.
func (d inEtcd) Holder(node string) (directory.Holder, bool) {
	h, ok := d.Directory.Holder(node)
	return directory.Holder(h), ok
}
