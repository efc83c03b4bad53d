package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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

// requests measures rates, processor time, delays and throughput.
func (c *contest) requests(ctx context.Context) error {
	all, err := c.proxies(ctx, 0)
	if err != nil {
		return err
	}
	defer endAll(all)
	for range c.rounds {
		for _, part := range []struct {
			row     string
			address string // the kind of address that a proxy needs for it
			measure func(context.Context, *process) error
		}{
			{"http", "http", c.http}, {"https", "https", c.https}, {"http2", "https", c.http2}, {"handshakes", "https", c.handshakes}, {"body", "https", c.body}, {"tcp", "tcp", c.tcp},
		} {
			for _, p := range all {
				if !c.measured(part.row) || p.at[part.address] == "" {
					continue
				}
				if err := part.measure(ctx, p); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
		}
	}
	return nil
}

func (c *contest) http(ctx context.Context, p *process) error {
	return c.rates(ctx, "HTTP", p, c.plain(p))
}

func (c *contest) https(ctx context.Context, p *process) error {
	return c.rates(ctx, "HTTPS", p, c.secure(p))
}

func (c *contest) rates(ctx context.Context, what string, p *process, by client) error {
	for _, clients := range []int{16, 256} {
		before, err := processor(p)
		if err != nil {
			return err
		}
		rate, p99, err := by.press(ctx, clients, c.long)
		if err != nil {
			return err
		}
		after, err := processor(p)
		if err != nil {
			return err
		}
		c.table.add(fmt.Sprintf("%s by %d clients, processor time of a request in µs", what, clients), p.name, (after-before).Seconds()*1e6/(rate*c.long.Seconds()))
		c.table.add(fmt.Sprintf("%s by %d clients, requests/s", what, clients), p.name, rate)
		c.table.add(fmt.Sprintf("%s by %d clients, p99 in ms", what, clients), p.name, p99.Seconds()*1000)
	}
	return nil
}

func (c *contest) http2(ctx context.Context, p *process) error {
	rate, ok, err := c.secure(p).h2load(ctx, c.long)
	if err == nil && ok {
		c.table.add("HTTP/2 by 16 x 10 streams, requests/s", p.name, rate)
	}
	return err
}

func (c *contest) handshakes(ctx context.Context, p *process) error {
	rate, err := c.secure(p).connects(ctx, c.long, func(net.Conn) error { return nil })
	c.table.add("new TLS handshakes/s", p.name, rate)
	return err
}

func (c *contest) body(ctx context.Context, p *process) error {
	before, err := processor(p)
	if err != nil {
		return err
	}
	speed, err := c.secure(p).big(ctx, c.size)
	if err != nil {
		return err
	}
	after, err := processor(p)
	c.table.add("large body over TLS, processor time of a GiB in ms", p.name, (after-before).Seconds()*1e3*float64(1<<30)/float64(c.size))
	c.table.add("large body over TLS, MiB/s", p.name, speed)
	return err
}

func (c *contest) tcp(ctx context.Context, p *process) error {
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

// connections measures the memory of idle connections, each of which has had one request. Each kind of them has a process of its
// own, since one that has served others uses their memory again.
func (c *contest) connections(ctx context.Context) error {
	if !c.measured("idle") {
		return nil
	}
	for kind, by := range map[string]func(*process) client{"HTTP": c.plain, "HTTPS": c.secure} {
		if err := c.idleConnections(ctx, kind, by); err != nil {
			return err
		}
	}
	return nil
}

func (c *contest) idleConnections(ctx context.Context, kind string, by func(*process) client) error {
	all, err := c.proxies(ctx, 0)
	if err != nil {
		return err
	}
	defer endAll(all)
	for _, p := range all {
		if p.at[strings.ToLower(kind)] == "" {
			continue
		}
		grown, err := c.idleMemory(ctx, p, by(p))
		if err != nil {
			return fmt.Errorf("%s: idle connections: %w", p.name, err)
		}
		c.table.add(fmt.Sprintf("%d idle connections of %s, MiB more", c.idle, kind), p.name, grown)
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
	if err == nil && c.profiles != "" {
		err = p.writeHeap(ctx, c.profiles)
	}
	return after - before, err
}

// manyHosts measures the memory of many hosts, and requests for the last of them.
func (c *contest) manyHosts(ctx context.Context) error {
	if !c.measured("hosts") {
		return nil
	}
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
	used, err := usage(pid)
	return float64(used.Resident) / (1 << 20), err
}

// processor returns the processor time of a proxy and its children.
func processor(p *process) (time.Duration, error) {
	used, err := usage(p.cmd.Process.Pid)
	return used.Processor, err
}

// usage adds up what a process and its children take.
func usage(pid int) (testcluster.Usage, error) {
	total, err := testcluster.UsageOf(pid)
	if err != nil {
		return total, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return total, err
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return total, err
			}
			more, err := usage(id)
			if err != nil {
				return total, err
			}
			total.Resident += more.Resident
			total.Processor += more.Processor
		}
	}
	return total, nil
}
