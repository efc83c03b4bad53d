package peer

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// silence returns for how long the other machine has neither sent nor acknowledged anything.
func silence(conn *net.TCPConn) (time.Duration, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond, nil
}
