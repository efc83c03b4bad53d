//go:build !linux

package peer

import (
	"errors"
	"net"
	"time"
)

// silence is not known here. Keepalives still end connections that are quiet.
func silence(*net.TCPConn) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}
