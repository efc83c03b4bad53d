package ports

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/connlimit"
)

// errClosed means that a session has ended. The next datagram begins another one.
var errClosed = errors.New("the session has ended")

// session passes the datagrams of one client to a service, and those of the service back. It stays with its container until the
// container leaves the endpoints. The next datagram of the client then goes to the new container.
//
// A session does not hold its endpoint. Nothing tells when a session is over, so a container could never stop.
type session struct {
	ports   *Ports
	key     api.PortKey
	client  netip.Addr
	project string
	hop     bool                     // another agent may be in between
	reply   func(frame []byte) error // passes a datagram of the service to the client; calls may overlap
	ended   func()                   // called once, when the session has ended
	tasks   *sync.WaitGroup          // goroutines of the session
	metrics *series

	active   atomic.Int64 // time of the last datagram
	place    *place
	stopIdle func()
	checked  atomic.Pointer[route] // has the client in its access list

	mu     sync.Mutex
	closed bool
	to     target
	via    upstream // leads to the target; nil before the first datagram
}

// upstream leads to a service.
type upstream interface {
	// send passes a datagram on or drops it. It never waits.
	send(datagram []byte) error
	close()
}

// target is where the service of a port is reached.
type target struct {
	node string // empty: this one
	host string // IP address of the service, or address of the other node's agent
	port int32  // of a service on this node
}

// begin makes a session count, until it ends. Another session may end for it.
func (s *session) begin(from string) {
	s.metrics = s.ports.metrics.session(s.project, from)
	s.metrics.begin()
	s.active.Store(time.Now().UnixNano())
	s.place = &place{of: connlimit.Prefix(s.client), evict: func() {
		s.metrics.evict()
		s.close()
	}}
	s.mu.Lock()
	s.stopIdle = watchIdle(s.ports.cfg.Limits.SessionIdle, &s.active, func() { s.tasks.Go(s.close) }) // close calls stopIdle
	s.mu.Unlock()
	s.ports.sessions.enter(s.place)
	if s.over() {
		s.ports.sessions.leave(s.place)
	}
}

// close ends the session. It does not wait for its goroutines.
func (s *session) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	if s.via != nil {
		s.via.close()
	}
	s.mu.Unlock()
	s.stopIdle()
	s.ports.sessions.leave(s.place)
	s.ended()
	s.metrics.end()
}

func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// touch records that the session is in use.
func (s *session) touch() {
	s.active.Store(time.Now().UnixNano())
	s.ports.sessions.touch(s.place)
}

// pass passes a datagram of the client on. Only one goroutine calls it.
func (s *session) pass(ctx context.Context, datagram []byte) error {
	route, err := s.allowed()
	if err != nil {
		return err
	}
	to, err := s.ports.target(route, s.hop)
	if err != nil {
		return err
	}
	via, err := s.upstream(ctx, to)
	if err != nil {
		return err
	}
	if err := via.send(datagram); err != nil {
		return err
	}
	s.touch()
	s.metrics.received(len(datagram))
	return nil
}

// allowed returns the route of the port, if its project is still that of the session and its access list has the client.
func (s *session) allowed() (*route, error) {
	if checked := s.checked.Load(); checked != nil && s.ports.routing.table.Load().routes[s.key] == checked {
		return checked, nil
	}
	to, err := s.ports.routing.route(key{PortKey: s.key}, s.client)
	switch {
	case err != nil:
		return nil, err
	case to.project != s.project:
		return nil, errNoRoute
	}
	s.checked.Store(to)
	return to, nil
}

// upstream returns what leads to the target. If the session led elsewhere, that ends.
func (s *session) upstream(ctx context.Context, to target) (upstream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.via != nil && s.to == to {
		return s.via, nil
	}
	next, err := s.open(ctx, to)
	if err != nil {
		return nil, err
	}
	if s.via != nil {
		s.via.close()
	}
	s.via, s.to = next, to
	return next, nil
}

// open returns a new upstream. It does not wait for the network.
func (s *session) open(ctx context.Context, to target) (upstream, error) {
	if to.node != "" {
		return s.openStream(ctx, to), nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(to.host, strconv.Itoa(int(to.port))))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotReady, err)
	}
	socket := conn.(*net.UDPConn)
	raw, err := socket.SyscallConn()
	if err != nil {
		_ = socket.Close() // it is abandoned
		return nil, err
	}
	s.tasks.Go(func() { _ = receive(socket, s.answer) }) // ends when the socket is closed
	return &direct{socket, raw}, nil
}

// answer passes a datagram of the service to the client.
func (s *session) answer(frame []byte) {
	_, err := s.allowed()
	if err == nil {
		s.touch()
		if err = s.reply(frame); err != nil {
			err = fmt.Errorf("%w: %w", errReply, err)
		}
	}
	switch {
	case err == nil:
		s.metrics.sent(len(frame) - frameHeader)
	case !s.over():
		s.ports.drop(s.key, s.project, s.client, err)
	}
}

// direct leads to a service on this node.
type direct struct {
	socket *net.UDPConn
	raw    syscall.RawConn
}

// send drops the datagram if the kernel has no room for it. An error of an earlier datagram is reported only once by the
// kernel, and this datagram may find the service again.
func (u *direct) send(datagram []byte) error {
	err := u.try(datagram)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = u.try(datagram)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOBUFS):
		return errSlow
	case errors.Is(err, syscall.EMSGSIZE):
		return errTooLong
	}
	return fmt.Errorf("%w: %w", errNotReady, err)
}

func (u *direct) try(datagram []byte) error {
	var failed error
	err := u.raw.Write(func(fd uintptr) bool {
		_, failed = syscall.SendmsgN(int(fd), datagram, nil, nil, syscall.MSG_DONTWAIT)
		return true // also if there is no room: it must not wait
	})
	return errors.Join(err, failed)
}

func (u *direct) close() { _ = u.socket.Close() } // nothing is lost that UDP keeps

// target returns where the service of a route is reached now.
func (p *Ports) target(to *route, hop bool) (target, error) {
	ip, release, up := p.cfg.Endpoint(to.project, to.service)
	switch {
	case up:
		release()
		return target{host: ip, port: to.port}, nil
	case to.node == p.cfg.Node || to.node == "" || !hop:
		return target{}, errNotReady
	case to.address == "" || p.cfg.Peers == nil:
		return target{}, fmt.Errorf("%w: its agent has no ingress address", errNode)
	}
	return target{node: to.node, host: to.address}, nil
}

// drop counts and logs a datagram that is dropped. project may be empty.
func (p *Ports) drop(k api.PortKey, project string, client netip.Addr, err error) {
	reason, _ := reasonOf(err)
	p.metrics.count(p.metrics.dropped, project, reason)
	if unsaid, ok := p.log.Say(time.Now()); ok {
		p.cfg.Logger.Warn("datagram dropped", "port", k.String(), "project", project, "client", client, "error", err, "unsaid", unsaid)
	}
}
