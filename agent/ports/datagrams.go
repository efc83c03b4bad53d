package ports

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// socketBytes is what the kernel is asked to keep of datagrams that have arrived. Its own limit may be lower.
const socketBytes = 4 << 20

// datagrams is an open UDP port. One goroutine receives its datagrams. It never waits for a service or for another agent.
type datagrams struct {
	ports  *Ports
	key    api.PortKey
	socket *net.UDPConn
	anyIP  bool // the socket has all addresses of the machine

	mu       sync.Mutex
	sessions map[peers]*session
}

// peers identifies a session: the client, and the address of this machine that it used. Replies leave from there.
type peers struct {
	client netip.AddrPort
	here   netip.Addr // not set if the socket has only one address
}

// listenUDP opens a UDP port.
func (p *Ports) listenUDP(ctx context.Context, k api.PortKey, network, address string) (*datagrams, error) {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d := &datagrams{ports: p, key: k, socket: conn.(*net.UDPConn), sessions: map[peers]*session{}}
	_ = d.socket.SetReadBuffer(socketBytes) // otherwise it has the standard size
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().IsUnspecified() {
		d.anyIP = true
		if err := tellDestination(d.socket, at.Addr()); err != nil {
			_ = conn.Close() // it is abandoned
			return nil, err
		}
	}
	return d, nil
}

// tellDestination makes a socket tell to which address a datagram was sent.
func tellDestination(socket *net.UDPConn, listen netip.Addr) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	if listen.Is4() {
		level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, failed)
}

// destination returns the address of this machine to which a datagram was sent, or none if the control data does not have it.
func destination(control []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:8])) // ipi_spec_dst, after ipi_ifindex
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		}
	}
	return netip.Addr{}
}

// source returns control data that makes a datagram leave from an address of this machine.
func source(here netip.Addr) []byte {
	switch {
	case here.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: here.As4()})
	case here.Is6(): // also an IPv4 address in an IPv6 socket
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: here.As16()})
	}
	return nil
}

// serve receives datagrams until the socket is closed. The sessions end with it.
func (d *datagrams) serve(ctx context.Context) {
	defer d.closeSessions()
	memory, control := make([]byte, maxDatagram+1), make([]byte, 128)
	if !d.anyIP {
		control = nil
	}
	for {
		n, used, _, client, err := d.socket.ReadMsgUDPAddrPort(memory, control)
		switch {
		case err == nil:
			from := peers{client: client}
			if d.anyIP {
				from.here = destination(control[:used])
			}
			d.handle(ctx, from, memory[:n])
		case errors.Is(err, net.ErrClosed):
			return
		default:
			if unsaid, ok := d.ports.log.Say(time.Now()); ok {
				d.ports.cfg.Logger.Warn("datagram not received", "port", d.key.String(), "error", err, "unsaid", unsaid)
			}
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// handle passes a datagram on or drops it.
func (d *datagrams) handle(ctx context.Context, from peers, datagram []byte) {
	client := from.client.Addr().Unmap().WithZone("")
	s, project, err := d.session(from, client)
	if err == nil && len(datagram) > maxDatagram {
		err = errTooLong
	}
	if err == nil {
		err = s.pass(ctx, datagram)
		if errors.Is(err, errClosed) || errors.Is(err, errNoRoute) { // it has just ended, or the port has another project now
			s.close()
			if s, project, err = d.session(from, client); err == nil {
				err = s.pass(ctx, datagram)
			}
		}
	}
	if err == nil {
		return
	}
	if s != nil && errors.Is(err, errNotAllowed) {
		s.close()
	}
	d.ports.drop(d.key, project, client, err)
}

// session returns the session of a client. It begins one only if the client is allowed and there is a service or a node to
// which the datagram can go, so that other clients cannot end sessions. With an error it returns the project that has the port.
func (d *datagrams) session(from peers, client netip.Addr) (s *session, project string, err error) {
	d.mu.Lock()
	s = d.sessions[from]
	d.mu.Unlock()
	if s != nil {
		return s, s.project, nil
	}
	to, err := d.ports.routing.route(key{PortKey: d.key}, client)
	if to != nil {
		project = to.project
	}
	if err != nil {
		return nil, project, err
	}
	if _, err := d.ports.target(to, true); err != nil {
		return nil, project, err
	}
	return d.begin(from, client, project), project, nil
}

func (d *datagrams) begin(from peers, client netip.Addr, project string) *session {
	s := &session{ports: d.ports, key: d.key, client: client, project: project, hop: true, tasks: &d.ports.open}
	control := source(from.here)
	s.reply = func(frame []byte) error {
		_, _, err := d.socket.WriteMsgUDPAddrPort(frame[frameHeader:], control, from.client)
		return err
	}
	s.ended = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.sessions[from] == s {
			delete(d.sessions, from)
		}
	}
	d.mu.Lock()
	d.sessions[from] = s
	d.mu.Unlock()
	s.begin(fromClient)
	return s
}

func (d *datagrams) closeSessions() {
	d.mu.Lock()
	all := make([]*session, 0, len(d.sessions))
	for _, s := range d.sessions {
		all = append(all, s)
	}
	d.mu.Unlock()
	for _, s := range all {
		s.close()
	}
}

// Close closes the port. Its sessions end.
func (d *datagrams) Close() error { return d.socket.Close() }

// serveDatagrams passes the datagrams of a session of another agent to a service on this node.
func (p *Ports) serveDatagrams(ctx context.Context, conn net.Conn, hello *carav1.PortConnection, client netip.Addr) {
	k := keyOfHello(hello)
	to, err := p.routing.route(k, client)
	if err == nil && to.project != hello.GetProject() {
		err = errNoRoute
	}
	if err != nil {
		project := ""
		if to != nil {
			project = to.project
		}
		p.drop(k.PortKey, project, client, err)
	}
	if answerHello(conn, err) != nil {
		return
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	s := &session{ports: p, key: k.PortKey, client: client, project: to.project, tasks: &tasks, ended: func() { reset(conn) }}
	s.reply = func(frame []byte) error {
		_, err := conn.Write(frame)
		return err
	}
	s.begin(fromAgent)
	defer s.close()
	stop := context.AfterFunc(ctx, func() { reset(conn) })
	defer stop()
	_ = readFrames(conn, func(frame []byte) { // whatever ends it, the session is over
		if err := s.pass(ctx, frame[frameHeader:]); err != nil && !errors.Is(err, errClosed) {
			p.drop(k.PortKey, s.project, client, err)
		}
	})
}
