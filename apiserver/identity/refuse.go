package identity

import (
	"fmt"
	"io"
	"net"
	"time"
)

const refusal = "this address speaks plaintext on the loopback only: use https:// (TLS) from other machines"

// refusePlaintext answers a plaintext caller that it must use TLS, and closes the connection. It does not read what the
// caller sent, which may be a token. The answer is HTTP/1.1 also for an HTTP/2 caller: gRPC clients report such an answer,
// but after a GOAWAY they would only retry.
func refusePlaintext(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(firstByte / 5)); err != nil {
		return
	}
	body := fmt.Sprintf(`{"title":"TLSRequired","status":400,"detail":%q}`+"\n", refusal)
	answer := fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(conn, answer); err != nil {
		return // the client has closed the connection
	}
	// Closing with unread bytes resets the connection and can destroy the answer. So close the write side first and read
	// some of the rest.
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // see above
	}
	_, _ = io.CopyN(io.Discard, conn, 64<<10) // see above; ends at the deadline
}

// CloseWrite closes the write side of the connection, if the connection supports that.
func (c *startedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
