package ingress

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// restore loads the table and the credentials of an earlier run, unless the server has already sent them.
func (i *Ingress) restore() {
	routes, credentials := &carav1.Routes{}, &carav1.Credentials{}
	haveRoutes, haveCredentials := i.routesFile.Load(routes), i.credentialsFile.Load(credentials)
	i.credentials.mu.Lock()
	if haveCredentials && !i.credentials.told {
		i.applyCredentials(credentials)
	}
	i.credentials.mu.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if haveRoutes && !i.told {
		i.apply(routes)
	}
}

// keepSaved stores the table and the credentials after each change, until ctx ends.
func (i *Ingress) keepSaved(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { i.routesFile.Run(ctx, i.routes) })
	all.Go(func() { i.credentialsFile.Run(ctx, i.credentials.stored) })
	all.Wait()
}

// routes returns the whole table.
func (t *routing) routes() proto.Message {
	all := &carav1.Routes{Full: true}
	for host, s := range t.table.Load().hosts {
		s.save(host, all)
	}
	for _, p := range t.table.Load().peers {
		all.Peers = append(all.Peers, p)
	}
	return all
}
