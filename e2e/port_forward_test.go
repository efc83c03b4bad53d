package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// echo runs a project of one service that sends back on port 9000 what it is sent, and returns its name once it listens.
func (w *testCluster) echo(short string) string {
	w.Helper()
	for _, host := range w.engines {
		testdocker.Images(w.T, host, testimage.Echo)
	}
	name := w.name(short)
	w.apply(project(name, `
services:
- name: echo
  image: `+testimage.Echo+`
  healthcheck: {tcp: {port: 9000}, interval: 200ms}
  stopGracePeriod: 1s`))
	w.running(name)
	return name
}

// forward begins a port-forward and returns the local addresses.
func (w *testCluster) forward(to string, ports ...string) (*testcluster.Process, []string) {
	w.Helper()
	p := w.begin(append([]string{"port-forward", to}, ports...)...)
	said := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> \w+:\d+`)
	var addresses []string
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "the ports are forwarded", func(context.Context) error {
		found := said.FindAllStringSubmatch(p.Tail(100), -1)
		if len(found) < len(ports) {
			return fmt.Errorf("it has printed %q", p.Tail(100))
		}
		for _, match := range found {
			addresses = append(addresses, match[1])
		}
		return nil
	}))
	return p, addresses
}

func dialLocal(address string) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), conn.SetDeadline(time.Now().Add(3 * patience))
}

// bounce sends bytes to an echo, ends its half, and compares what came back.
func bounce(address string, sent []byte) error {
	conn, err := dialLocal(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		written <- errors.Join(err, conn.CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-written); err != nil {
		return fmt.Errorf("after %d bytes of %d: %w", len(got), len(sent), err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
	return nil
}

func TestPortForward(t *testing.T) {
	w := oneNode(t)
	name := w.echo("ports")
	p, addresses := w.forward("project/"+name, "0:9000", "0:9001")
	big := make([]byte, often(100, 32)<<20) // more than all buffers on the way
	_, _ = rand.Read(big)
	w.sub("much both ways", func(w *testCluster) { w.must(bounce(addresses[0], big)) })
	w.sub("many connections at once", func(w *testCluster) {
		var all sync.WaitGroup
		for i := range often(200, 50) {
			all.Go(func() {
				if err := bounce(addresses[0], big[i<<10:(i+300)<<10]); err != nil {
					w.Errorf("connection %d: %v; %s", i, err, p.Tail(3))
				}
			})
		}
		all.Wait()
	})
	w.sub("those that stand still are in nobody's way", func(w *testCluster) {
		for range 20 { // each with more on its way than all buffers hold, and no reader
			conn, err := dialLocal(addresses[0])
			w.must(err)
			defer conn.Close()
			go func() { _, _ = conn.Write(big) }()
		}
		w.must(bounce(addresses[0], big[:1<<20]))
		w.ready("n1")
	})
	w.sub("a refused connection is said, and the others go on", func(w *testCluster) {
		conn, err := dialLocal(addresses[1])
		w.must(err)
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			w.Errorf("it reads %d, %v: want a broken connection", n, err)
		}
		w.prints(p, "error: echo:9001: node n1: connect to echo:9001: connect: connection refused")
		w.must(bounce(addresses[0], []byte("hello")))
	})
	w.sub("what there is not", func(w *testCluster) {
		for args, want := range map[string]string{
			name + "/nope 80":      "has no service \"nope\"; its services are echo",
			"nothing 80":           `project "nothing" not found`,
			name + " 80:x":         "does not name ports",
			name + " 0":            "does not name ports",
			name + " 1:2 99999:80": "does not name ports",
			name + " " + strings.TrimPrefix(addresses[0], "127.0.0.1:") + ":80": "of this machine is in use",
		} {
			if r := w.ctl("", append([]string{"port-forward"}, strings.Fields(args)...)...); r.Code != 1 || !strings.Contains(r.Stderr, want) {
				w.Errorf("port-forward %s: %+v\nwant %q", args, r, want)
			}
		}
	})
	w.sub("it outlives the agent and the server", func(w *testCluster) {
		conn, err := dialLocal(addresses[0])
		w.must(err)
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		w.must(err)
		_, err = io.ReadFull(conn, make([]byte, 1)) // so that the connection reaches through the agent
		w.must(err)
		w.must(w.Agents["n1"].Kill())
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			w.Errorf("it reads %v when the agent has gone: want a broken connection", err)
		}
		w.prints(p, "node n1 has disconnected")
		w.must(w.RestartAgent("n1"))
		ctx, cancel := w.patience()
		defer cancel()
		w.must(w.Server.Stop(ctx))
		w.must(w.StartServer(ctx))
		w.must(testcluster.WaitFor(ctx, "bytes come back", func(context.Context) error { return bounce(addresses[0], []byte("hello")) }))
	})
	w.must(p.Stop(t.Context()))
	if p.ExitCode() != 0 {
		t.Errorf("exit code %d when it is told to stop:\n%s", p.ExitCode(), p.Tail(20))
	}
}

// TestStreamsOfASecondNode: commands and connections reach the node that has the project, whichever it is.
func TestStreamsOfASecondNode(t *testing.T) {
	w, _ := twoNodes(t)
	on := map[string]string{}
	for _, short := range []string{"a", "b"} {
		name := w.echo(short)
		node := w.project(name).GetStatus().GetNodeRef()
		on[node] = name
		_, addresses := w.forward(name, "0:9000")
		w.must(bounce(addresses[0], make([]byte, 1<<20)))
		if r := w.ctl("", "exec", name, "--", "/echo", "nothing"); r.Code == 0 || r.Code == 125 {
			t.Errorf("exec on %s: %+v", node, r) // the port is taken there: it was run, and failed
		}
		if r := w.ctl("", "top", name); r.Code != 0 || !strings.Contains(r.Stdout, "echo") {
			t.Errorf("top on %s: %+v", node, r)
		}
	}
	if len(on) != 2 {
		t.Errorf("both are on one node: %v", on)
	}
}
