package ingress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
)

// unavailable sends a response that invites a retry soon.
func unavailable(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("Retry-After", "1")
	page(w, r, http.StatusServiceUnavailable, text)
}

// failed responds to a request whose backend failed.
func (i *Ingress) failed(w http.ResponseWriter, r *http.Request, err error) {
	b := backendOf(r)
	switch x := exchangeOf(r); {
	case x.stoodStill():
		w.Header().Set("Connection", "close")
		page(w, r, http.StatusRequestTimeout, fmt.Sprintf("The request's body stood still for %s.", i.cfg.Limits.Stall))
		return
	case x.request.Context().Err() != nil:
		return // the client left or stopped sending: close its connection
	}
	if neverSent(err) {
		exchangeOf(r).notSent()
	}
	if _, ok := errors.AsType[notReady](err); ok {
		unavailable(w, r, err.Error())
		return
	}
	if unsaid, ok := i.troubles.Say(time.Now()); ok {
		i.cfg.Logger.Warn("backend did not answer", "project", b.Project, "service", b.Service,
			"node", b.Node, "backend", b.addr, "error", err, "unsaid", unsaid)
	}
	if u, ok := errors.AsType[*unreachable](err); ok && u.outdated {
		unavailable(w, r, fmt.Sprintf("Project %q runs on node %q, whose agent is too old for the protocol %s. Update it.", b.Project, b.Node, api.TargetH2C))
		return
	} else if ok {
		unavailable(w, r, fmt.Sprintf("Project %q runs on node %q, which cannot be reached from node %q.", b.Project, b.Node, i.cfg.Node))
		return
	}
	if _, ok := errors.AsType[*unresponsive](err); ok {
		page(w, r, http.StatusGatewayTimeout, fmt.Sprintf("Project %q runs on node %q, whose agent does not answer any more. The service may have got the request.", b.Project, b.Node))
		return
	}
	if isCall(r) {
		if code, status, what := callFailure(exchangeOf(r), err); code != codes.Unavailable {
			endCall(w, code, status, b.String()+" "+what+".")
			return
		}
	}
	status, what := http.StatusBadGateway, "did not answer"
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		status, what = http.StatusGatewayTimeout, "took too long to answer"
	}
	text := b.String() + " " + what
	if !b.remote {
		text += fmt.Sprintf(" on port %d", b.Port)
	}
	page(w, r, status, text+".")
}

// takeBody is how long the body of a request that was not sent may take to arrive.
const takeBody = time.Second

// notSent tells another agent that its request was not sent. It takes the body first, as far as it can be sent again: otherwise the
// other agent would have to stop in the middle of it.
func (x *exchange) notSent() {
	if x.via == "" {
		return
	}
	x.Header().Set(headerNotSent, "1")
	if x.request.ContentLength != 0 && x.setReadDeadline(time.Now().Add(takeBody)) == nil {
		_, _ = io.CopyN(io.Discard, x.request.Body, maxRecorded+1) // an error ends the request anyway
	}
}

// String names the backend in an answer.
func (b *backend) String() string {
	if b.remote {
		return fmt.Sprintf("Node %q, which runs project %q,", b.Node, b.Project)
	}
	return fmt.Sprintf("Service %q of project %q", b.Service, b.Project)
}
