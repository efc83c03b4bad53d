package main

import (
	"context"
	"fmt"

	"github.com/caravanserai/cara/internal/test/testnet"
)

// machine is a network namespace with one address, which is like a machine for the network.
type machine struct {
	*testnet.Machine
	name string
}

// connect makes the network, with three machines for etcd and three for servers.
func (h *haDemo) connect(ctx context.Context) (err error) {
	if h.network, err = testnet.Start(ctx, len(h.etcd)+len(h.servers)); err != nil {
		return err
	}
	for i := range h.etcd {
		h.etcd[i] = machine{h.network.Machines[i], fmt.Sprintf("cara-ha-etcd%d", i+1)}
	}
	for i := range h.servers {
		h.servers[i] = machine{h.network.Machines[len(h.etcd)+i], fmt.Sprintf("cara-ha-server%d", i+1)}
	}
	return nil
}
