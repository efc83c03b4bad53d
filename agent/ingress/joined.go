package ingress

import (
	"sync"
)

// A large write over TLS becomes several records, and crypto/tls passes each to the connection alone. They are joined here, so that
// one write to the client costs one system call. The records themselves stay as they are.

// joinFrom is the size of the writes that are joined, in bytes: net/http gathers smaller ones in a buffer of this size.
const joinFrom = 4 << 10

// joinedSize has room for a copy buffer and the headers of its records.
const joinedSize = bufferSize + 2<<10

//nolint:gochecknoglobals // a pool
var joinedBuffers = sync.Pool{New: func() any { return new([joinedSize]byte) }}

// writeBody writes a part of the response body.
func (x *exchange) writeBody(p []byte) (int, error) {
	if len(p) <= joinFrom || x.request.TLS == nil || x.request.ProtoMajor != 1 {
		return x.ResponseWriter.Write(p)
	}
	c, ok := x.request.Context().Value(connKey{}).(*conn)
	if !ok {
		return x.ResponseWriter.Write(p)
	}
	c.join()
	n, err := x.ResponseWriter.Write(p)
	if sent := c.sendJoined(); err == nil && sent != nil {
		return 0, sent
	}
	return n, err
}

// join makes Write keep what it gets, until sendJoined.
func (c *conn) join() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.joined = joinedBuffers.Get().(*[joinedSize]byte)
	c.kept = 0
}

// sendJoined sends what Write has kept since join.
func (c *conn) sendJoined() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.sendKept()
	joinedBuffers.Put(c.joined)
	c.joined = nil
	return err
}

// sendKept sends what is kept. writing is held.
func (c *conn) sendKept() error {
	if c.kept == 0 {
		return nil
	}
	_, err := c.send(c.joined[:c.kept])
	c.kept = 0
	return err
}

// Write writes, or keeps what it gets if there is room.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.joined == nil {
		return c.send(p)
	}
	if c.kept+len(p) > len(c.joined) {
		if err := c.sendKept(); err != nil {
			return 0, err
		}
	}
	if len(p) > len(c.joined) {
		return c.send(p)
	}
	c.kept += copy(c.joined[c.kept:], p)
	return len(p), nil
}
