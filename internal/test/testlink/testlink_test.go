package testlink

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHoldAndRelease: data sent during a hold arrives after the release, on old and new connections.
func TestHoldAndRelease(t *testing.T) {
	echo, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintln(c, lines.Text())
				}
			}()
		}
	}()
	socket := filepath.Join(t.TempDir(), "s")
	link, err := Start(t.Context(), Address{"unix", socket}, Address{"tcp", echo.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	}()
	dial := func() (say func(string), hear func(time.Duration) (string, error)) {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		in := bufio.NewReader(c)
		return func(text string) { fmt.Fprintln(c, text) }, func(patience time.Duration) (string, error) {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			return in.ReadString('\n')
		}
	}
	say, hear := dial()
	say("one")
	if text, err := hear(time.Minute); text != "one\n" {
		t.Fatalf("heard %q, %v", text, err)
	}
	link.Hold()
	say("two")
	sayToo, hearToo := dial()
	sayToo("three")
	if text, err := hear(50 * time.Millisecond); err == nil {
		t.Errorf("heard %q while the link is held", text)
	}
	link.Release()
	if text, err := hear(time.Minute); text != "two\n" {
		t.Errorf("heard %q, %v", text, err)
	}
	if text, err := hearToo(time.Minute); text != "three\n" {
		t.Errorf("heard %q, %v on the connection made meanwhile", text, err)
	}
}

// TestOneWayAndBreak: a hold of one direction lets the other one pass, and Break ends the open connections alone.
func TestOneWayAndBreak(t *testing.T) {
	server, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	link, err := Start(t.Context(), Address{"tcp", "127.0.0.1:0"}, Address{"tcp", server.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	pair := func() (client, peer net.Conn) {
		t.Helper()
		client, err := new(net.Dialer).DialContext(t.Context(), "tcp", link.Addr())
		if err != nil {
			t.Fatal(err)
		}
		peer, err = server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, peer
	}
	say := func(from, to net.Conn, text string) {
		t.Helper()
		if _, err := fmt.Fprint(from, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
			t.Fatalf("%q %v, want %q", got, err, text)
		}
	}
	client, peer := pair()
	defer client.Close()
	defer peer.Close()
	link.Slow(time.Millisecond)
	say(client, peer, "slow")
	link.Slow(0)
	link.HoldThere()
	fmt.Fprint(client, "stopped")
	say(peer, client, "passes")
	link.Break(t.Context())
	if data, err := io.ReadAll(peer); len(data) > 0 {
		t.Errorf("the broken connection delivers %q (%v)", data, err)
	}
	link.Release()
	client, peer = pair()
	defer client.Close()
	defer peer.Close()
	link.HoldBack()
	say(client, peer, "passes")
	link.Release()
	say(peer, client, "passes")
	if err := link.Close(); err != nil {
		t.Error(err)
	}
}
