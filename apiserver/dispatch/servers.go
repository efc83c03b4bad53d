package dispatch

import (
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// KnowServers sets the addresses of the servers. Each agent is told with its next heartbeat.
func (d *Dispatcher) KnowServers(addresses []string) {
	next := &carav1.Servers{Addresses: addresses}
	if have := d.servers.Load(); have == nil || !proto.Equal(have, next) {
		d.servers.Store(next)
	}
}

// tellServers sends the addresses of the servers if the agent does not have them. Only listen calls it.
func (d *Dispatcher) tellServers(me *Session) error {
	next := d.servers.Load()
	if next == nil || len(next.GetAddresses()) == 0 || next == me.told {
		return nil
	}
	me.told = next
	return me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Servers{Servers: next}})
}
