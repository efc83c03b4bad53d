package etcd

import (
	"net"
	"sync/atomic"
	"testing"
)

// A member that cannot be reached is tried again all the time: when etcd is back after a long outage, the store finds it at once. With
// gRPC's own pauses, so many tries take longer than the test waits.
func TestTriesGoOn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at the end of the test
	must(t, err)
	var tries atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			tries.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		must(t, listener.Close())
		<-ended
	})
	c, err := connect(t.Context(), Config{Endpoints: []string{"http://" + listener.Addr().String()}}.withDefaults())
	must(t, err)
	t.Cleanup(func() { must(t, c.disconnect()) })
	c.running.Go(func() { _, _ = c.readKey(c.closed, "key") })
	eventually(t, "15 tries", func() bool { return tries.Load() >= 15 })
}
