package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// client is how requests reach a proxy.
type client struct {
	address string
	host    string
	roots   *x509.CertPool // nil: no TLS
}

// dial opens a connection, always with a whole handshake.
func (c client) dial(ctx context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: time.Minute}
	if c.roots == nil {
		return d.DialContext(ctx, "tcp", c.address)
	}
	secured := &tls.Dialer{NetDialer: d, Config: &tls.Config{
		RootCAs: c.roots, ServerName: c.host, NextProtos: []string{"http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519}, // all know it; older versions do not know the ones against quantum computers, which cost more
	}}
	return secured.DialContext(ctx, "tcp", c.address)
}

// ask sends a request and discards its answer, which must be 200. It returns the size of the body.
func (c client) ask(conn net.Conn, in *bufio.Reader, path string) (int64, error) {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+c.host+"\r\nUser-Agent: front\r\nAccept: */*\r\n\r\n"); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New("it answers " + answer.Status)
	}
	return n, err
}

// during runs a number of loops side by side until the time is over. Each gets a function that reports whether it goes on.
func during(ctx context.Context, n int, long time.Duration, loop func(i int, more func() bool) error) (time.Duration, error) {
	begun := time.Now()
	more := func() bool { return ctx.Err() == nil && time.Since(begun) < long }
	var all errgroup.Group
	for i := range n {
		all.Go(func() error { return loop(i, more) })
	}
	err := all.Wait()
	return time.Since(begun), errors.Join(err, ctx.Err())
}

// press sends requests by some clients, each the next as soon as it has its answer.
func (c client) press(ctx context.Context, clients int, long time.Duration) (rate float64, p99 time.Duration, err error) {
	took := make([][]time.Duration, clients)
	elapsed, err := during(ctx, clients, long, func(i int, more func() bool) error {
		conn, err := c.dial(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for more() {
			sent := time.Now()
			if _, err := c.ask(conn, in, "/"); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(sent))
		}
		return nil
	})
	all := slices.Concat(took...)
	if err != nil || len(all) == 0 {
		return 0, 0, fmt.Errorf("send requests to %s: %w", c.address, err)
	}
	slices.Sort(all)
	return float64(len(all)) / elapsed.Seconds(), all[len(all)*99/100], nil
}

// connects opens connections one after the other, by 16 clients, and does something with each.
func (c client) connects(ctx context.Context, long time.Duration, use func(net.Conn) error) (rate float64, err error) {
	counts := make([]int, 16)
	elapsed, err := during(ctx, len(counts), long, func(i int, more func() bool) error {
		for more() {
			conn, err := c.dial(ctx)
			if err != nil {
				return err
			}
			err = use(conn)
			discard(conn)
			if err != nil {
				return err
			}
			counts[i]++
		}
		return nil
	})
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / elapsed.Seconds(), err
}

// discard closes a connection so that its port is free again at once.
func discard(conn net.Conn) {
	raw := conn
	if secured, ok := conn.(*tls.Conn); ok {
		raw = secured.NetConn()
	}
	_ = raw.(*net.TCPConn).SetLinger(0)
	_ = raw.Close()
}

// big receives the large body over one connection, in MiB/s.
func (c client) big(ctx context.Context, size int64) (float64, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begun := time.Now()
	n, err := c.ask(conn, bufio.NewReaderSize(conn, 64<<10), "/big")
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes instead of %d", n, size)
	}
	return float64(n) / (1 << 20) / time.Since(begun).Seconds(), err
}

// bigTCP receives as much over a connection that is passed on.
func (c client) bigTCP(ctx context.Context, size int64) (float64, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begun := time.Now()
	if _, err := conn.Write([]byte("b")); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	var n int64
	for {
		m, err := conn.Read(buf) // io.Copy to io.Discard has small buffers
		n += int64(m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if n != size {
		return 0, fmt.Errorf("%d bytes instead of %d", n, size)
	}
	return float64(n) / (1 << 20) / time.Since(begun).Seconds(), nil
}

var (
	h2loadRate   = regexp.MustCompile(`finished in [^,]+, ([0-9.]+) req/s`)
	h2loadFailed = regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored`)
)

// h2load sends requests over HTTP/2 by 16 connections with 10 streams each. ok is false if h2load is not installed.
func (c client) h2load(ctx context.Context, long time.Duration) (rate float64, ok bool, err error) {
	program, err := exec.LookPath("h2load")
	if err != nil {
		return 0, false, nil //nolint:nilerr // it is left out
	}
	seconds := strconv.Itoa(max(1, int(long.Seconds())))
	out, err := exec.CommandContext(ctx, program, "-c16", "-m10", "-t1", "-D"+seconds, "--connect-to="+c.address, "https://"+c.host+"/").CombinedOutput()
	if err != nil {
		return 0, true, fmt.Errorf("h2load: %w: %s", err, out)
	}
	found, failures := h2loadRate.FindSubmatch(out), h2loadFailed.FindSubmatch(out)
	if found == nil || failures == nil || string(failures[1]) == "0" || string(failures[2]) != "0" {
		return 0, true, fmt.Errorf("h2load: %s", out)
	}
	rate, err = strconv.ParseFloat(string(found[1]), 64)
	return rate, true, err
}
