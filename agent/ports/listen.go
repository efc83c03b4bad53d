package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// listeners are the ports that should be open. They belong to the goroutine of Run.
type listeners struct {
	ports *Ports
	open  map[api.PortKey]*listener
}

// listener is a port that is open, or that could not be opened.
type listener struct {
	io.Closer // nil if it could not be opened
	problem   string
}

// adjust opens the ports that are claimed and offered, closes the others, and reports them. It returns true if a port could not
// be opened.
func (l *listeners) adjust(ctx context.Context) (again bool) {
	routes := l.ports.routing.table.Load().routes
	for k, open := range l.open {
		if routes[k] == nil {
			open.close()
			delete(l.open, k)
		}
	}
	var report []*carav1.NodePort
	for k, to := range routes {
		if ctx.Err() != nil || !api.OffersPort(l.ports.cfg.Offer, k) {
			continue
		}
		if open := l.open[k]; open == nil || open.Closer == nil {
			l.open[k] = l.listen(ctx, k, open)
		}
		again = again || l.open[k].problem != ""
		report = append(report, &carav1.NodePort{Protocol: k.Protocol, Port: k.Port, Scope: k.Scope, Project: to.project, Problem: l.open[k].problem})
	}
	l.ports.report.set(report)
	return again
}

// listen opens a port and serves it. before is the last attempt, or nil.
func (l *listeners) listen(ctx context.Context, k api.PortKey, before *listener) *listener {
	p := l.ports
	address := net.JoinHostPort(api.PortAddress(p.cfg.Offer, k.Scope), strconv.Itoa(int(k.Port)))
	in, err := p.listen(ctx, k, address)
	if err != nil {
		problem := problemText(k, address, err)
		if before == nil || before.problem != problem {
			p.cfg.Logger.Warn("port not opened", "port", k.String(), "address", address, "error", err)
		}
		return &listener{problem: problem}
	}
	p.cfg.Logger.Info("port opened", "port", k.String(), "address", address)
	return &listener{Closer: in}
}

// listen opens a port and starts to serve it.
func (p *Ports) listen(ctx context.Context, k api.PortKey, address string) (io.Closer, error) {
	version := ""
	if ip, err := netip.ParseAddrPort(address); err == nil && ip.Addr().Is4() {
		version = "4" // without this, 0.0.0.0 has the IPv6 addresses too
	}
	if k.Protocol == api.ProtocolUDP {
		d, err := p.listenUDP(ctx, k, "udp"+version, address)
		if err != nil {
			return nil, err
		}
		p.open.Go(func() { d.serve(ctx) })
		return d, nil
	}
	in, err := new(net.ListenConfig).Listen(ctx, "tcp"+version, address)
	if err != nil {
		return nil, err
	}
	p.open.Go(func() { p.accept(ctx, k, in) })
	return in, nil
}

// problemText says why a port is not open and what to do.
func problemText(k api.PortKey, address string, err error) string {
	show := "ss -ltnp"
	if k.Protocol == api.ProtocolUDP {
		show = "ss -lunp"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("another program on the machine uses %s; stop it (%s shows it), or take the port out of --ports of cara-agent", address, show)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("the machine does not have the address of %s; correct %s of cara-agent", address, api.PortAddressFlag(k.Scope))
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("cara-agent may not open %s; run it as root, or with the capability NET_BIND_SERVICE", address)
	}
	return fmt.Sprintf("%s cannot be opened: %v", address, err)
}

func (l *listener) close() {
	if l.Closer != nil {
		_ = l.Close() // it is abandoned
	}
}

func (l *listeners) close() {
	for _, open := range l.open {
		open.close()
	}
	l.ports.report.set(nil)
}

// acceptPause is the wait after an error of a listener, such as too many open files.
const acceptPause = 100 * time.Millisecond

// accept serves the connections of one port until its listener is closed.
func (p *Ports) accept(ctx context.Context, k api.PortKey, l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			p.open.Go(func() { p.serve(ctx, k, conn.(*net.TCPConn)) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			if unsaid, ok := p.log.Say(time.Now()); ok {
				p.cfg.Logger.Warn("connection not accepted", "port", k.String(), "error", err, "unsaid", unsaid)
			}
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
		}
	}
}
