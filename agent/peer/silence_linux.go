package peer

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// lookAt asks the kernel about the other machine.
func lookAt(conn *net.TCPConn) (sign, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return sign{}, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, failed); err != nil {
		return sign{}, err
	}
	return sign{
		silent: time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond,
		owes:   info.Unacked > 0 || info.Probes > 0,
	}, nil
}
