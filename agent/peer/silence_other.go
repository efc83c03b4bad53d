//go:build !linux

package peer

import (
	"errors"
	"net"
)

// lookAt is not supported here. Keepalives still end connections that are quiet.
func lookAt(*net.TCPConn) (sign, error) {
	return sign{}, errors.ErrUnsupported
}
