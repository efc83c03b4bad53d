package testlink

import (
	"bufio"
	"fmt"
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
