// Package sni reads the host that a TLS client names before the connection is accepted. The ingress of an agent passes TLS
// connections on by it. It has no part in the processing of a push.
package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// Peek reads the first message of a TLS client and returns the host that it names, in lower case, and everything that it has read.
// It reads at most limit bytes and sends nothing. The host is empty if the client names none, or if the message is incomplete or no
// TLS.
func Peek(ctx context.Context, r io.Reader, limit int64) (host string, read []byte) {
	var seen bytes.Buffer
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		host = strings.ToLower(hello.ServerName)
		return nil, errPeeked
	}}
	_ = tls.Server(onlyRead{io.TeeReader(io.LimitReader(r, limit), &seen)}, config).HandshakeContext(ctx) // it always fails
	return host, seen.Bytes()
}

var errPeeked = errors.New("only the host was wanted")

// onlyRead is a connection that can only be read.
type onlyRead struct{ io.Reader }

func (onlyRead) Write(p []byte) (int, error)      { return len(p), nil }
func (onlyRead) Close() error                     { return nil }
func (onlyRead) LocalAddr() net.Addr              { return nil }
func (onlyRead) RemoteAddr() net.Addr             { return nil }
func (onlyRead) SetDeadline(time.Time) error      { return nil }
func (onlyRead) SetReadDeadline(time.Time) error  { return nil }
func (onlyRead) SetWriteDeadline(time.Time) error { return nil }
