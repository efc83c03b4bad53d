package ports

import (
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// bare is the simplest proxy of TCP connections.
func bare(b *testing.B, target int32) (port int32) {
	return service(b, func(conn *net.TCPConn) {
		to, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(target))))
		if err != nil {
			return
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(to, conn); _ = to.(*net.TCPConn).CloseWrite() })
		_, _ = io.Copy(conn, to)
		_ = conn.CloseWrite()
		both.Wait()
		_ = to.Close()
	})
}

// manyOfOne lets one client have all connections.
func manyOfOne(c *Config) { c.Limits.ClientConnections = 10_000 }

// proxies are what a benchmark compares. The service is the same for all.
func proxies(b *testing.B, handle func(*net.TCPConn), bench func(b *testing.B, port int32)) {
	b.Run("direct", func(b *testing.B) { bench(b, service(b, handle)) })
	b.Run("bare io.Copy", func(b *testing.B) { bench(b, bare(b, service(b, handle))) })
	b.Run("local", func(b *testing.B) {
		_, port := alone(b, manyOfOne, handle)
		bench(b, port)
	})
	b.Run("other node", func(b *testing.B) {
		_, _, port := pair(b, manyOfOne, handle)
		bench(b, port)
	})
}

// BenchmarkThroughput sends data in one direction of one connection.
func BenchmarkThroughput(b *testing.B) {
	proxies(b, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, func(b *testing.B, port int32) {
		conn := dial(b, port)
		chunk := make([]byte, 1<<20)
		b.SetBytes(int64(len(chunk)))
		for b.Loop() {
			if _, err := conn.Write(chunk); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRoundTrip sends one byte and waits for it.
func BenchmarkRoundTrip(b *testing.B) {
	proxies(b, echo, func(b *testing.B, port int32) {
		conn, one := dial(b, port), []byte("x")
		for b.Loop() {
			if _, err := conn.Write(one); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, one); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkConnections opens a connection, sends one byte, gets it back and closes.
func BenchmarkConnections(b *testing.B) {
	proxies(b, echo, func(b *testing.B, port int32) {
		one := []byte("x")
		for b.Loop() {
			conn := dial(b, port)
			if _, err := conn.Write(one); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, one); err != nil {
				b.Fatal(err)
			}
			_ = conn.SetLinger(0) // no port of the machine stays in use
			_ = conn.Close()
		}
	})
}

// BenchmarkIdleMemory reports the memory of the process for each idle connection: client, proxy and service together.
func BenchmarkIdleMemory(b *testing.B) {
	const connections = 1500
	proxies(b, func(conn *net.TCPConn) {
		one := make([]byte, 1)
		for {
			if _, err := io.ReadFull(conn, one); err != nil {
				return
			}
			_, _ = conn.Write(one)
		}
	}, func(b *testing.B, port int32) {
		before := memory()
		var open []net.Conn
		for b.Loop() {
			for len(open) < connections {
				conn := dial(b, port)
				if _, err := conn.Write([]byte("x")); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				open = append(open, conn)
			}
		}
		b.ReportMetric(float64(memory()-before)/float64(len(open)), "B/conn")
		for _, conn := range open {
			_ = conn.Close()
		}
	})
}

// memory returns the bytes of the heap and of all stacks.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
