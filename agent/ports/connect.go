package ports

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Reasons of refused connections and dropped datagrams, in the metrics.
const (
	refusedNoProject = "no_project"
	refusedAllow     = "not_allowed"
	refusedLimit     = "too_many"
	refusedHeader    = "proxy_header"
	refusedService   = "service_down"
	refusedNode      = "node_unreachable"
	droppedSlow      = "slow"
	droppedTooLong   = "too_long"
	droppedReply     = "reply_not_sent"
)

// Errors of an attempt to reach a service.
var (
	errNoRoute    = errors.New("no project has the port")
	errNotAllowed = errors.New("the client is not allowed")
	errNotReady   = errors.New("the service is not ready")
	errTooMany    = errors.New("too many connections are open")
	errHeader     = errors.New("--proxy-protocol-from has its address, so it must begin with a PROXY header")
	errNode       = errors.New("the node of the project cannot be reached")
	errSlow       = errors.New("the service or the connection to its node receives too slowly")
	errTooLong    = errors.New("the datagram is too long")
	errReply      = errors.New("the reply cannot be sent to the client")
)

// reasons lists which error has which reason in the metrics, and which answer another agent gets: 0 for what happens to
// datagrams only. Anything else is refusedService.
var reasons = []struct { //nolint:gochecknoglobals // a table that never changes
	err    error
	reason string
	answer byte
}{
	{errNoRoute, refusedNoProject, 1},
	{errNotAllowed, refusedAllow, 2},
	{errNotReady, refusedService, 3},
	{errTooMany, refusedLimit, 4},
	{errNode, refusedNode, 5},
	{errHeader, refusedHeader, 6},
	{errSlow, droppedSlow, 0},
	{errTooLong, droppedTooLong, 0},
	{errReply, droppedReply, 0},
}

// reasonOf returns the reason of a failed attempt, and the answer for another agent.
func reasonOf(err error) (reason string, answer byte) {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason, r.answer
		}
	}
	return refusedService, 3
}

// backend is a connection to a service, direct or through another agent.
type backend struct {
	net.Conn
	release func() // ends the hold on the endpoint; nil behind another agent
}

func (b *backend) done() {
	_ = b.Close() // both sides are done
	if b.release != nil {
		b.release()
	}
}

// serve serves one connection of a client.
func (p *Ports) serve(ctx context.Context, k api.PortKey, conn *net.TCPConn) {
	defer conn.Close()
	client, leave, err := p.identify(ctx, conn)
	defer leave()
	if errors.Is(err, io.EOF) {
		return // for example a check of a load balancer whether the port is open
	}
	p.serveClient(ctx, key{PortKey: k}, client, conn, nil, err)
}

// serveClient passes the connection of a client to the service, after what the client has sent already, or refuses it.
func (p *Ports) serveClient(ctx context.Context, k key, client netip.Addr, conn *net.TCPConn, begun []byte, err error) {
	to, denied := p.routing.route(k, client)
	err = cmp.Or(err, denied)
	var b *backend
	if err == nil {
		b, err = p.reach(ctx, k, client, to.project, true)
	}
	if err == nil && len(begun) > 0 {
		if _, err = b.Write(begun); err != nil {
			b.done()
		}
	}
	if err != nil {
		p.refuse(k, to, client, err)
		reset(conn)
		return
	}
	defer b.done()
	p.relay(ctx, to.project, fromClient, conn, b.Conn)
}

// identify finds out whose connection it is, and counts it for this client. One from a load balancer must begin with a PROXY
// header, which names the client. Until then it counts for the load balancer.
func (p *Ports) identify(ctx context.Context, conn *net.TCPConn) (client netip.Addr, leave func(), err error) {
	client = addressOf(conn.RemoteAddr())
	leave, ok := p.enter(client)
	if !ok {
		return client, func() {}, errTooMany
	}
	if !p.cfg.ProxyProtocolFrom.Has(conn.RemoteAddr()) {
		return client, leave, nil
	}
	passed, err := p.readHeader(ctx, conn)
	if passed == nil || err != nil {
		return client, leave, err
	}
	leave()
	client = addressOf(passed)
	if leave, ok = p.enter(client); !ok {
		return client, func() {}, errTooMany
	}
	return client, leave, nil
}

// readHeader reads the header of a load balancer, and nothing after it. It returns nil if the load balancer speaks for itself.
func (p *Ports) readHeader(ctx context.Context, conn *net.TCPConn) (*net.TCPAddr, error) {
	if err := conn.SetReadDeadline(time.Now().Add(p.cfg.Limits.Header)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read
	defer stop()
	client, err := proxyheader.Read(conn)
	switch {
	case errors.Is(err, io.EOF):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	return client, conn.SetReadDeadline(time.Time{})
}

func addressOf(of net.Addr) netip.Addr {
	at, err := netip.ParseAddrPort(of.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// refuse counts and logs a connection that is refused. to may be nil.
func (p *Ports) refuse(k key, to *route, client netip.Addr, err error) {
	reason, _ := reasonOf(err)
	project := ""
	if to != nil {
		project = to.project
	}
	p.metrics.count(p.metrics.refusals, project, reason)
	if unsaid, ok := p.log.Say(time.Now()); ok {
		p.cfg.Logger.Warn("connection refused", "to", k.String(), "project", project, "client", client, "error", err, "unsaid", unsaid)
	}
}

// reachAgain is the longest wait before a service that does not accept connections is tried again.
const reachAgain = 250 * time.Millisecond

// reach connects to the service of a port. While the service is not ready, it waits, for at most Limits.Hold. It fails if the
// port passes to another project meanwhile. hop allows another agent in between.
func (p *Ports) reach(ctx context.Context, k key, client netip.Addr, project string, hop bool) (*backend, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.Hold)
	defer cancel()
	for again := reachAgain / 16; ; again = min(2*again, reachAgain) {
		endpoints, routes := p.cfg.Endpoints(), p.routing.changed() // before the attempt, so that no change is missed
		to, err := p.routing.route(k, client)
		if err == nil && to.project != project {
			err = errNoRoute
		}
		if err != nil {
			return nil, err
		}
		b, err := p.try(ctx, k, client, to, hop)
		if err == nil || errors.Is(err, errNotAllowed) || errors.Is(err, errTooMany) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-endpoints:
		case <-routes:
		case <-time.After(again):
		}
	}
}

// try connects to the service once.
func (p *Ports) try(ctx context.Context, k key, client netip.Addr, to *route, hop bool) (*backend, error) {
	ip, release, up := p.cfg.Endpoint(to.project, to.service)
	switch {
	case up:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(to.port))))
		if err != nil {
			release()
			return nil, fmt.Errorf("%w: %w", errNotReady, err)
		}
		return &backend{conn, release}, nil
	case to.node == p.cfg.Node || to.node == "" || !hop:
		return nil, errNotReady
	case to.address == "" || p.cfg.Peers == nil:
		return nil, fmt.Errorf("%w: its agent has no ingress address", errNode)
	}
	conn, err := p.hop(ctx, to, &carav1.PortConnection{
		Protocol: k.Protocol, Port: k.Port, Scope: k.Scope, Project: to.project, Client: client.String(), Host: k.host,
	})
	if err != nil {
		return nil, err
	}
	return &backend{Conn: conn}, nil
}

// hop opens a connection through the agent of another node.
func (p *Ports) hop(ctx context.Context, to *route, hello *carav1.PortConnection) (*tls.Conn, error) {
	conn, err := p.cfg.Peers.DialPort(ctx, to.node, to.address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNode, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() }) // ends greet
	err = greet(conn, hello)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.NetConn().Close() // it is abandoned
		return nil, err
	}
	return conn, nil
}

// Serve serves a connection of another agent, and closes it. node is the node of the agent, which was verified.
func (p *Ports) Serve(ctx context.Context, node string, conn net.Conn) {
	defer conn.Close()
	if node == "" {
		return
	}
	hello, err := readHello(conn)
	var client netip.Addr
	if err == nil {
		if client, err = netip.ParseAddr(hello.GetClient()); err != nil {
			err = errNotAllowed
		}
	}
	switch {
	case err != nil:
		_ = answerHello(conn, err)
	case hello.GetProtocol() == api.ProtocolUDP:
		p.serveDatagrams(ctx, conn, hello, client)
	default:
		p.serveConnection(ctx, conn, hello, client)
	}
}

// answerHello tells another agent what became of its first message.
func answerHello(conn net.Conn, err error) error {
	answer := byte(0)
	if err != nil {
		_, answer = reasonOf(err)
	}
	_, failed := conn.Write([]byte{answer})
	return errors.Join(err, failed)
}

func keyOfHello(hello *carav1.PortConnection) key {
	return key{api.PortKey{Protocol: hello.GetProtocol(), Port: hello.GetPort(), Scope: hello.GetScope()}, hello.GetHost()}
}

// serveConnection passes a connection to a service on this node.
func (p *Ports) serveConnection(ctx context.Context, conn net.Conn, hello *carav1.PortConnection, client netip.Addr) {
	k := keyOfHello(hello)
	leave, entered := p.enter(client)
	var b *backend
	err := errTooMany
	if entered {
		defer leave()
		b, err = p.reach(ctx, k, client, hello.GetProject(), false)
	}
	if err != nil {
		p.refuse(k, p.routing.lookup(k), addressOf(conn.RemoteAddr()), err)
	} else {
		defer b.done()
	}
	if answerHello(conn, err) == nil {
		p.relay(ctx, hello.GetProject(), fromAgent, conn, b.Conn)
	}
}
