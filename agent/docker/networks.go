package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// ListNetworks implements engine.Networks.
func (e *networks) ListNetworks(ctx context.Context, labels map[string]string) ([]engine.Network, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) ([]engine.Network, error) {
		list, err := docker.NetworkList(ctx, network.ListOptions{Filters: labelFilter(labels)})
		if err != nil {
			return nil, wrap(err, "list networks")
		}
		out := make([]engine.Network, 0, len(list))
		for _, n := range list {
			found := engine.Network{ID: n.ID, Name: n.Name, Labels: n.Labels}
			if len(n.IPAM.Config) > 0 {
				found.Subnet = n.IPAM.Config[0].Subnet
			}
			out = append(out, found)
		}
		return out, nil
	})
}

// overlapRetries is how often CreateNetwork tries another subnet because one was taken.
const overlapRetries = 16

// CreateNetwork implements engine.Networks.
func (e *networks) CreateNetwork(ctx context.Context, name string, labels map[string]string, containers int) (engine.Network, error) {
	return ask(ctx, e.connection, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) (engine.Network, error) {
		refused := map[netip.Prefix]bool{}
		for {
			subnet, release, err := e.reserve(ctx, bitsFor(containers), refused)
			if err != nil {
				return engine.Network{}, fmt.Errorf("create network %s: %w", name, err)
			}
			made, err := docker.NetworkCreate(ctx, name, network.CreateOptions{
				Driver: "bridge", Labels: labels,
				IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: subnet.String()}}},
			})
			release()
			switch {
			case err == nil:
				return engine.Network{ID: made.ID, Name: name, Labels: labels, Subnet: subnet.String()}, nil
			case errdefs.IsConflict(err) || strings.Contains(err.Error(), "network with name "+name+" already exists"):
				return e.adoptNetwork(ctx, name, labels, err)
			case overlaps(err) && len(refused) < overlapRetries:
				refused[subnet] = true // taken by another client or by a route of the machine
			default:
				return engine.Network{}, wrap(err, "create network %s", name)
			}
		}
	})
}

func overlaps(err error) bool {
	text := err.Error()
	return strings.Contains(text, "overlaps") || strings.Contains(text, "conflicts with network") ||
		strings.Contains(text, "Address already in use")
}

func (e *networks) adoptNetwork(ctx context.Context, name string, labels map[string]string, conflict error) (engine.Network, error) {
	docker, err := e.api(ctx)
	if err != nil {
		return engine.Network{}, err
	}
	n, err := docker.NetworkInspect(ctx, name, network.InspectOptions{})
	err = wrap(err, "inspect network %s", name)
	switch {
	case errors.Is(err, engine.ErrNotFound), err != nil && strings.Contains(err.Error(), "is ambiguous"): // next pass decides
		return engine.Network{}, wrap(conflict, "create network %s", name)
	case err != nil:
		return engine.Network{}, err
	case has(n.Labels, labels):
		return engine.Network{ID: n.ID, Name: n.Name, Labels: n.Labels}, nil
	case ours(n.Labels, labels):
		return engine.Network{}, wrap(conflict, "create network %s", name)
	}
	return engine.Network{}, fmt.Errorf("create network %s: %w: network %.12s has this name; remove it, or rename the project",
		name, engine.ErrForeign, n.ID)
}

// RemoveNetwork implements engine.Networks.
func (e *networks) RemoveNetwork(ctx context.Context, id string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		err := docker.NetworkRemove(ctx, id)
		if busy(err) {
			return e.removeBusy(ctx, id)
		}
		return wrap(unlessGone(err), "remove network %s", id)
	})
}

// SubnetCapacity implements engine.Machine.
func (e *networks) SubnetCapacity() int { return 1 << (subnetBits - e.cfg.NetworkPool.Bits()) }

// reserve chooses the lowest free subnet and keeps it from other callers until release.
func (e *networks) reserve(ctx context.Context, bits int, refused map[netip.Prefix]bool) (netip.Prefix, func(), error) {
	taken, err := e.takenSubnets(ctx)
	if err != nil {
		return netip.Prefix{}, nil, err
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	taken = append(taken, narrow(addresses, bits)...)
	e.making.Lock()
	defer e.making.Unlock()
	taken = slices.AppendSeq(taken, maps.Keys(e.reserved))
	taken = slices.AppendSeq(taken, maps.Keys(refused))
	subnet, ok := freeSubnet(e.cfg.NetworkPool, bits, taken)
	if !ok {
		what := fmt.Sprintf("all %d subnets of the network pool %s are taken, by networks or by addresses of this machine", e.SubnetCapacity(), e.cfg.NetworkPool)
		if bits != subnetBits {
			what = fmt.Sprintf("the network pool %s has no free /%d, which this project's services need", e.cfg.NetworkPool, bits)
		}
		return netip.Prefix{}, nil, fmt.Errorf("%w: %s; it is tried again, but "+
			"start the agent with a larger --network-pool, with one that nobody else uses, or move projects", engine.ErrNoRoom, what)
	}
	e.reserved[subnet] = true
	return subnet, func() {
		e.making.Lock()
		defer e.making.Unlock()
		delete(e.reserved, subnet)
	}, nil
}

// takenSubnets returns the subnets of all networks of the engine.
func (e *networks) takenSubnets(ctx context.Context) ([]netip.Prefix, error) {
	docker, err := e.api(ctx)
	if err != nil {
		return nil, err
	}
	all, err := docker.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, wrap(err, "list networks")
	}
	var taken []netip.Prefix
	for _, n := range all {
		for _, c := range n.IPAM.Config {
			if p, err := netip.ParsePrefix(c.Subnet); err == nil {
				taken = append(taken, p.Masked())
			}
		}
	}
	return taken, nil
}

// narrow returns the subnets of a machine's addresses that are not larger than a new subnet of bits: the kernel sends packets for the new
// subnet to them. An engine that was killed while it created a network can leave its bridge, with the address, and no longer know the network. The
// route of a larger subnet, such as that of the local network, is less specific and takes nothing from a new one.
func narrow(addresses []net.Addr, bits int) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Bits() >= bits {
			out = append(out, p.Masked())
		}
	}
	return out
}

// bitsFor returns the length of the smallest prefix, at least a /27, with enough addresses for the containers.
func bitsFor(containers int) int {
	bits := subnetBits
	for bits > 8 && engine.Addresses(bits) < containers {
		bits--
	}
	return bits
}

// freeSubnet returns the lowest subnet of this size in pool that does not overlap with any of taken.
func freeSubnet(pool netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, bool) {
	if bits < pool.Bits() {
		return netip.Prefix{}, false
	}
	used := map[netip.Addr]bool{}
	for _, t := range taken {
		switch {
		case !t.IsValid() || !t.Overlaps(pool):
		case t.Bits() <= pool.Bits():
			return netip.Prefix{}, false
		default:
			at := netip.PrefixFrom(t.Addr(), min(t.Bits(), bits)).Masked().Addr()
			used[at] = true
			for next := nextSubnet(at, bits); t.Contains(next) && at.Less(next); next = nextSubnet(at, bits) {
				used[next], at = true, next
			}
		}
	}
	for at := pool.Addr(); pool.Contains(at); at = nextSubnet(at, bits) {
		if !used[at] {
			return netip.PrefixFrom(at, bits), true
		}
	}
	return netip.Prefix{}, false
}

func nextSubnet(at netip.Addr, bits int) netip.Addr {
	b := at.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += 1 << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
