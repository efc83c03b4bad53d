package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// While a project moves to another node, there is a time without any container of it, and the agents do not learn of the move at the
// same moment. A request of that time waits for the new container, if no service has got it yet. Only the agent that the client
// connects to waits: another agent answers at once that it has not sent the request, and the first one tries again.
const (
	// movedFor is how long after a move requests wait, for at most Limits.Hold each.
	movedFor = 2 * time.Minute
	// servedFor and settles are for a service that was there a moment ago: the agent may not have learned of a move yet.
	servedFor = time.Minute
	settles   = time.Second
	// maxWaiting limits the requests that wait. Others are answered at once.
	maxWaiting = 1024
	// tryFirst and tryAgain are the first and the longest pause between two attempts.
	tryFirst = 20 * time.Millisecond
	tryAgain = 250 * time.Millisecond
)

// notReady is why there is no backend. Its text is for the client.
type notReady struct{ text string }

func (n notReady) Error() string { return n.text }

// errNotSent means that the agent of another node has no service for a request.
var errNotSent = errors.New("the other agent has not sent the request")

// neverSent reports whether an error means that no service has got any part of the request.
func neverSent(err error) bool {
	if _, ok := errors.AsType[notReady](err); ok || errors.Is(err, errNotSent) {
		return true
	}
	if _, ok := errors.AsType[*unreachable](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// backendOf returns the backend of an incoming or outgoing request.
func backendOf(r *http.Request) *backend { return exchangeOf(r).backend }

// sender sends the requests of clients to services, and again while nobody has got them.
type sender struct{ *Ingress }

// RoundTrip implements http.RoundTripper. It changes the request, which the proxy has made for it alone.
func (s sender) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeOf(r)
	b := x.backend
	err := s.locate(x, b)
	var body *recording // not of a request to a service here with HTTP/1.1: that is the common case, and needs no copy
	if b.addr == "" || s.transports.to(b) != s.transports.near {
		body = recordBody(r, &s.recorded)
	}
	defer body.forget()
	var resp *http.Response
	if err == nil {
		resp, err = s.try(x, b, r)
	}
	unrecorded := body == nil && r.Body != nil && r.Body != http.NoBody // the transport has closed it
	if err == nil || !neverSent(err) || unrecorded {
		return told(resp, err)
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxWaiting {
		return told(resp, err)
	}
	return s.again(x, b, r, body, resp, err)
}

// again repeats a request that nobody has got, until somebody has or its time is over. last and err are of the last attempt.
func (s sender) again(x *exchange, b *backend, r *http.Request, body *recording, last *http.Response, err error) (*http.Response, error) {
	for pause := tryFirst; neverSent(err); pause = min(2*pause, tryAgain) {
		left, lost := s.patience(x, b.rule), body.gone()
		if lost || left <= 0 || !sleep(r.Context(), min(pause, left)) {
			break
		}
		if body != nil {
			next, unread := body.again()
			if unread != nil {
				continue // the transport still reads it, for the attempt that has failed
			}
			r.Body = next
		}
		if last != nil {
			_ = last.Body.Close() // it was an answer of an agent
			last = nil
		}
		b.done()
		if err = s.follow(x, b); err != nil {
			break
		}
		if err = s.locate(x, b); err == nil {
			last, err = s.try(x, b, r)
		}
	}
	return told(last, err)
}

// locate finds out where the service of a rule is, and holds it.
func (s sender) locate(x *exchange, b *backend) error {
	ip, release, up := s.cfg.Endpoint(b.Project, b.Service)
	switch {
	case up:
		b.addr, b.release = net.JoinHostPort(ip, strconv.Itoa(int(b.Port))), release
	case b.Node == s.cfg.Node || b.Node == "" || x.via != "":
		return notReady{fmt.Sprintf("Service %q of project %q is not ready.", b.Service, b.Project)}
	case s.table.Load().agents[b.Node] == "":
		return notReady{fmt.Sprintf("Project %q runs on node %q, whose agent has no ingress address.", b.Project, b.Node)}
	default:
		b.addr, b.remote = b.Node, true
	}
	return nil
}

// patience returns how long a request can still wait for the service of a rule.
func (s sender) patience(x *exchange, r *rule) time.Duration {
	waited := time.Since(x.begun)
	switch {
	case x.via != "":
		return 0
	case time.Since(r.moved) < movedFor:
		return s.cfg.Limits.Hold - waited
	case time.Since(time.Unix(r.served.at.Load(), 0)) < servedFor:
		return settles - waited
	}
	return 0
}

// told returns what the client gets: the answer of another agent, if there is one.
func told(resp *http.Response, err error) (*http.Response, error) {
	if resp != nil {
		return resp, nil
	}
	return nil, err
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// follow replaces the rule of a backend by the current one for the same service and the same clients.
func (s sender) follow(x *exchange, b *backend) error {
	now, ok := s.table.Load().hosts[hostname(x.request.Host)].route(x.request.URL)
	if !ok || now == nil || !sameButNode(now.Route, b.Route) {
		return notReady{fmt.Sprintf("Service %q of project %q is not ready.", b.Service, b.Project)}
	}
	b.rule = now
	return nil
}

// sameButNode reports whether routes differ only in where the project runs.
func sameButNode(a, b *carav1.Route) bool {
	if a == b {
		return true
	}
	b = proto.CloneOf(b)
	b.Node, b.IngressAddress, b.Moving = a.GetNode(), a.GetIngressAddress(), a.GetMoving()
	return proto.Equal(a, b)
}

// try sends a request once. With errNotSent it also returns the answer of the other agent.
func (s sender) try(x *exchange, b *backend, r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = "http", b.addr
	if b.remote {
		r.URL.Scheme = "https"
	}
	claimScope(r.Header, x, b.remote)
	if b.remote {
		var watched context.Context
		watched, b.unwatch = s.peerWatch.watch(r.Context(), b.addr)
		r = r.WithContext(watched)
	}
	resp, err := s.transports.to(b).RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if b.remote && resp.Header.Get(headerNotSent) != "" {
		return resp, errNotSent
	}
	if b.remote && resp.StatusCode == http.StatusSwitchingProtocols {
		// After an upgrade, net/http does not end the connection with the context. The proxy takes the body out of the response.
		upgraded := resp.Body
		context.AfterFunc(r.Context(), func() { _ = upgraded.Close() }) // errors do not matter: it is abandoned
	}
	b.served.note()
	return resp, nil
}
