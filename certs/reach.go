package certs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Address is a public address of a node.
type Address struct {
	Node string
	IP   netip.Addr
}

const shownAddresses = 5

// Reaches returns the nodes that a host leads to, or what is wrong with its DNS records. found are the addresses that the
// host has in DNS. All of them must be of the cluster, because the authority and the clients can choose any of them.
func Reaches(host string, found []netip.Addr, cluster []Address) (nodes []string, problem string) {
	if len(cluster) == 0 {
		return nil, "no agent has told a public address: start an agent with --public-http, --public-https and --public-address, or cara-server with --acme-skip-resolve-check"
	}
	own := map[netip.Addr][]string{}
	for _, a := range cluster {
		own[a.IP.Unmap()] = append(own[a.IP.Unmap()], a.Node)
	}
	if len(found) == 0 {
		return nil, fmt.Sprintf("%s has no address in DNS: add a record that leads to %s", host, addressList(cluster))
	}
	var foreign []string
	for _, ip := range found {
		if names := own[ip.Unmap()]; names != nil {
			nodes = append(nodes, names...)
		} else {
			foreign = append(foreign, ip.String())
		}
	}
	if len(foreign) > 0 {
		return nil, fmt.Sprintf("%s leads to %s, which no agent has told as its public address: let its DNS records lead to %s; if a load balancer or a router passes the ports 80 and 443 on, start cara-server with --acme-skip-resolve-check",
			host, shorten(foreign), addressList(cluster))
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), ""
}

func addressList(cluster []Address) string {
	var all []string
	for _, a := range cluster {
		all = append(all, a.IP.String())
	}
	return shorten(all)
}

// shorten joins texts without duplicates, and at most a few of them.
func shorten(all []string) string {
	slices.Sort(all)
	all = slices.Compact(all)
	if n := len(all); n > shownAddresses {
		return strings.Join(all[:shownAddresses], ", ") + fmt.Sprintf(" and %d more", n-shownAddresses)
	}
	return strings.Join(all, ", ")
}

// Answering returns why the authority must not be asked to validate a host yet, or "". ready are the nodes whose agents
// answer the challenge, missing those that should. leadsTo are the nodes that the host leads to; nil if that is unknown.
func Answering(ready, missing, leadsTo []string) string {
	if len(ready) == 0 && len(missing) == 0 {
		return "no agent with public addresses is connected: start an agent with --public-http and --public-https"
	}
	for _, node := range leadsTo {
		switch {
		case slices.Contains(missing, node):
			return fmt.Sprintf("the agent of node %s has not confirmed that it answers the authority's request: check that agent", node)
		case !slices.Contains(ready, node):
			return fmt.Sprintf("the host leads to node %s, whose agent is not connected: start that agent, or remove the node's address from DNS", node)
		}
	}
	if len(ready) == 0 {
		return fmt.Sprintf("no agent has confirmed that it answers the authority's request: check the agents of %s", shorten(slices.Clone(missing)))
	}
	return ""
}
