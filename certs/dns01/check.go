package dns01

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	checkLimit = 3 * time.Minute
	checkEvery = 2 * time.Second
	maxServers = 8 // that are asked
)

// Resolver finds the servers of a zone. net.Resolver is one.
type Resolver interface {
	LookupNS(ctx context.Context, name string) ([]*net.NS, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Checker waits until DNS servers have a record. Its zero value needs a Resolver or Servers.
type Checker struct {
	// Servers are asked, as HOST:PORT. Without any, those of the record's zone are.
	Servers  []string
	Resolver Resolver
	// Limit is how long a record may take; zero is 3 minutes. Every is the pause between two looks; zero is 2 seconds.
	Limit, Every time.Duration

	port string // of a zone's servers; empty is 53
}

// Wait returns when all servers have the record, or an error for people after the limit.
func (c *Checker) Wait(ctx context.Context, r Record) error {
	limit := cmp.Or(c.Limit, checkLimit)
	end := time.Now().Add(limit)
	inner, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	problem := ""
	for {
		now := c.look(inner, r)
		if now == "" {
			return nil
		}
		// A look that the limit has cut short says less than the one before. A connection notices the end before inner does.
		if problem == "" || time.Now().Before(end) {
			problem = now
		}
		select {
		case <-time.After(cmp.Or(c.Every, checkEvery)):
			continue
		case <-inner.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the TXT record %s was not found within %s: %s", r.Name, limit, problem)
	}
}

// look asks all servers once. It returns what is missing, or "".
func (c *Checker) look(ctx context.Context, r Record) (problem string) {
	servers := make([][]string, 0, maxServers)
	for _, s := range c.Servers {
		servers = append(servers, []string{s})
	}
	if len(servers) == 0 {
		var err error
		if servers, err = c.authoritative(ctx, r.Name); err != nil {
			return err.Error()
		}
	}
	for _, addresses := range servers {
		var err error
		for _, address := range addresses { // one of them is enough: this machine may lack IPv6
			if err = has(ctx, address, r); !errors.As(err, new(unreachable)) {
				break
			}
		}
		if err != nil {
			return err.Error()
		}
	}
	return ""
}

// authoritative returns the addresses of each server of the zone that has a name.
func (c *Checker) authoritative(ctx context.Context, name string) ([][]string, error) {
	for zone := name; ; {
		_, parent, ok := strings.Cut(zone, ".")
		if !ok {
			return nil, fmt.Errorf("no DNS server is known for %s: name servers with --acme-dns-check", name)
		}
		zone = parent
		found, err := c.Resolver.LookupNS(ctx, zone+".")
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			continue
		}
		if err != nil && len(found) == 0 {
			return nil, fmt.Errorf("the DNS servers of %s cannot be looked up: %w", zone, err)
		}
		var all [][]string
		for _, ns := range found[:min(len(found), maxServers)] {
			ips, err := c.Resolver.LookupNetIP(ctx, "ip", ns.Host)
			if err != nil {
				return nil, fmt.Errorf("the address of the DNS server %s cannot be looked up: %w", ns.Host, err)
			}
			var addresses []string
			for _, ip := range ips[:min(len(ips), maxServers)] {
				addresses = append(addresses, net.JoinHostPort(ip.Unmap().String(), cmp.Or(c.port, "53")))
			}
			all = append(all, addresses)
		}
		return all, nil
	}
}

// unreachable is a server that has not answered.
type unreachable struct{ error }

// has returns an error if a server does not have the record.
func has(ctx context.Context, server string, r Record) error {
	answer, err := ask(ctx, server, r.Name, dns.TypeTXT)
	if err != nil {
		return unreachable{fmt.Errorf("the DNS server %s has not answered: %w", server, err)}
	}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == r.Value {
			return nil
		}
	}
	return fmt.Errorf("the DNS server %s does not have it yet (%s)", server, dns.RcodeToString[answer.Rcode])
}
