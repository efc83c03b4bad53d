package identity

import (
	"fmt"
	"io"
	"net"
	"time"
)

const refusal = "this address speaks plaintext on the loopback only: use https:// (TLS) from other machines"

// refusePlaintext tells a plaintext caller that it has to use TLS, and ends the connection. What it sent, a token
// maybe, is not looked at. The answer is HTTP/1.1 for a caller that speaks HTTP/2 too: gRPC clients know that answer for
// what it is and report it, where after a GOAWAY they would only try again.
func refusePlaintext(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(firstByte / 5)); err != nil {
		return
	}
	body := fmt.Sprintf(`{"title":"TLSRequired","status":400,"detail":%q}`+"\n", refusal)
	answer := fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(conn, answer); err != nil {
		return // gone already: there is nobody to tell
	}
	// Closing with unread bytes resets the connection and can destroy the answer on its way: end our side, then take a
	// little of what is left.
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // as above
	}
	_, _ = io.CopyN(io.Discard, conn, 64<<10) // as above: up to the deadline
}

// CloseWrite ends our side of the connection, where the connection can do that.
func (c *startedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
