package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// contest measures proxies in turns.
type contest struct {
	options
	roots *x509.CertPool
	table *table
}

func (c *contest) plain(p *process) client  { return client{p.at["http"], plainHost, nil} }
func (c *contest) secure(p *process) client { return client{p.at["https"], host, c.roots} }

// requests measures rates, delays and throughput.
func (c *contest) requests(ctx context.Context) error {
	all, err := c.proxies(ctx, 0)
	if err != nil {
		return err
	}
	defer endAll(all)
	for range c.rounds {
		for _, measure := range []func(context.Context, *process) error{c.http, c.https, c.tcp} {
			for _, p := range all {
				if err := measure(ctx, p); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
		}
	}
	return nil
}

func (c *contest) http(ctx context.Context, p *process) error {
	if p.at["http"] == "" {
		return nil
	}
	return c.rates(ctx, "HTTP", p, c.plain(p))
}

func (c *contest) rates(ctx context.Context, what string, p *process, by client) error {
	for _, clients := range []int{16, 256} {
		rate, p99, err := by.press(ctx, clients, c.long)
		if err != nil {
			return err
		}
		c.table.add(fmt.Sprintf("%s by %d clients, requests/s", what, clients), p.name, rate)
		c.table.add(fmt.Sprintf("%s by %d clients, p99 in ms", what, clients), p.name, p99.Seconds()*1000)
	}
	return nil
}

func (c *contest) https(ctx context.Context, p *process) error {
	if p.at["https"] == "" {
		return nil
	}
	by := c.secure(p)
	if err := c.rates(ctx, "HTTPS", p, by); err != nil {
		return err
	}
	rate, ok, err := by.h2load(ctx, c.long)
	if err != nil {
		return err
	}
	if ok {
		c.table.add("HTTP/2 by 16 x 10 streams, requests/s", p.name, rate)
	}
	handshakes, err := by.connects(ctx, c.long, func(net.Conn) error { return nil })
	if err != nil {
		return err
	}
	c.table.add("new TLS handshakes/s", p.name, handshakes)
	speed, err := by.big(ctx, c.size)
	if err != nil {
		return err
	}
	c.table.add("large body over TLS, MiB/s", p.name, speed)
	return nil
}

func (c *contest) tcp(ctx context.Context, p *process) error {
	if p.at["tcp"] == "" {
		return nil
	}
	by := client{p.at["tcp"], "", nil}
	speed, err := by.bigTCP(ctx, c.size)
	if err != nil {
		return err
	}
	c.table.add("TCP forwarding, MiB/s", p.name, speed)
	rate, err := by.connects(ctx, c.long, func(conn net.Conn) error {
		ping := []byte("p")
		if _, err := conn.Write(ping); err != nil {
			return err
		}
		_, err := conn.Read(ping)
		return err
	})
	c.table.add("TCP forwarding, connections with a ping/s", p.name, rate)
	return err
}

// connections measures the memory of idle connections, each of which has had one request.
func (c *contest) connections(ctx context.Context) error {
	all, err := c.proxies(ctx, 0)
	if err != nil {
		return err
	}
	defer endAll(all)
	for _, p := range all {
		for kind, by := range map[string]client{"HTTP": c.plain(p), "HTTPS": c.secure(p)} {
			if by.address == "" {
				continue
			}
			grown, err := c.idleMemory(ctx, p, by)
			if err != nil {
				return fmt.Errorf("%s: idle connections: %w", p.name, err)
			}
			c.table.add(fmt.Sprintf("%d idle connections of %s, MiB more", c.idle, kind), p.name, grown)
		}
	}
	return nil
}

func (c *contest) idleMemory(ctx context.Context, p *process, by client) (float64, error) {
	before, err := memory(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	open := make([]net.Conn, 0, c.idle)
	defer func() {
		for _, conn := range open {
			discard(conn)
		}
	}()
	for range c.idle {
		conn, err := by.dial(ctx)
		if err != nil {
			return 0, fmt.Errorf("after %d: %w", len(open), err)
		}
		open = append(open, conn)
		if _, err := by.ask(conn, bufio.NewReaderSize(conn, 16), "/"); err != nil {
			return 0, fmt.Errorf("after %d: %w", len(open), err)
		}
	}
	after, err := memory(p.cmd.Process.Pid)
	return after - before, err
}

// manyHosts measures the memory of many hosts, and requests for the last of them.
func (c *contest) manyHosts(ctx context.Context) error {
	all, err := c.proxies(ctx, c.hosts)
	if err != nil {
		return err
	}
	defer endAll(all)
	for range c.rounds {
		for _, p := range all {
			if p.name == "bare" {
				continue // it has no hosts
			}
			used, err := memory(p.cmd.Process.Pid)
			if err != nil {
				return err
			}
			c.table.add(fmt.Sprintf("%d hosts, MiB in all", c.hosts), p.name, used)
			rate, _, err := client{p.at["http"], hostNumber(c.hosts - 1), nil}.press(ctx, 16, c.long)
			if err != nil {
				return fmt.Errorf("%s: many hosts: %w", p.name, err)
			}
			c.table.add(fmt.Sprintf("HTTP by 16 clients with %d hosts, requests/s", c.hosts), p.name, rate)
		}
	}
	return nil
}

// memory returns the resident memory of a process and its children, in MiB.
func memory(pid int) (float64, error) {
	used, err := testcluster.UsageOf(pid)
	if err != nil {
		return 0, err
	}
	total := float64(used.Resident) / (1 << 20)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for child := range strings.FieldsSeq(string(children)) {
		id, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		more, err := memory(id)
		if err != nil {
			return 0, err
		}
		total += more
	}
	return total, nil
}
