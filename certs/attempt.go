package certs

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

const (
	resolveTimeout = 10 * time.Second
	maxReach       = 20 // hosts that are looked up for one certificate
)

// work does what is due for one host, and returns when to look again.
func (o *Obtainer) work(ctx context.Context, host string) (time.Duration, error) {
	step, state := o.hosts.decide(host, o.cfg.Directory, o.cfg.Now())
	switch step.Verb {
	case Wait:
		if step.At.IsZero() {
			return 0, nil
		}
		return min(max(step.At.Sub(o.cfg.Now()), time.Millisecond), o.cfg.Glance), nil
	case Forget:
		_, err := o.server.DeleteCertificate(ctx, &carav1.DeleteCertificateRequest{Host: host})
		if err == nil {
			o.hosts.set(host, nil)
		}
		return 0, err
	case Order, Renew:
		defer o.hosts.done(host)
		o.cfg.Logger.Debug("certificate is due", "host", host, "do", step.Verb, "reason", step.Reason)
		if err := o.attempt(ctx, host, state); err != nil {
			return 0, err
		}
	}
	return time.Millisecond, nil // the next decision says when
}

// attempt checks the host, orders its certificate and stores the result. A failure of the order is a result, not an error.
func (o *Obtainer) attempt(ctx context.Context, host string, state *carav1.CertificateOrder) error {
	if state == nil {
		state = &carav1.CertificateOrder{Metadata: &carav1.ObjectMeta{Name: host}}
	}
	leadsTo, problem := o.reachAny(ctx, o.hosts.under(host))
	if problem != "" {
		return o.store(ctx, host, Failed(state, o.cfg.Directory, Failure{Problem: problem}, o.cfg.Now()), issued{})
	}
	ctx, note := withNote(ctx, o.cfg.Now)
	made, err := o.authority.obtain(ctx, host, state, o.solvers(host, leadsTo))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		var leaf *x509.Certificate
		if leaf, err = first(made.chain); err == nil {
			return o.store(ctx, host, Succeeded(state, o.cfg.Directory, leaf.NotBefore, leaf.NotAfter, o.cfg.Now()), made)
		}
	}
	problem, ordered := explain(o.cfg.Directory, o.cfg.DNS != nil, err)
	failure := Failure{Problem: problem, Ordered: ordered, RetryAfter: note.get()}
	return o.store(ctx, host, Failed(state, o.cfg.Directory, failure, o.cfg.Now()), issued{})
}

// store stores the result of an attempt.
func (o *Obtainer) store(ctx context.Context, host string, next *carav1.CertificateOrder, made issued) error {
	order := proto.CloneOf(next)
	order.Metadata = nil
	stored, err := o.server.UpdateCertificate(ctx, &carav1.UpdateCertificateRequest{
		Host: host, ResourceVersion: next.GetMetadata().GetResourceVersion(), Order: order, Chain: made.chain, Key: made.key,
	})
	if err != nil {
		return loop.Refused(fmt.Errorf("store the certificate of %s: %w", host, err))
	}
	o.hosts.set(host, stored)
	o.asks.Add(host)
	for _, covered := range o.hosts.covered(host) { // their own certificates are no longer needed
		o.queue.Add(covered)
	}
	if next.GetProblem() != "" {
		o.cfg.Logger.Warn("no certificate", "host", host, "problem", next.GetProblem(), "next_try", next.GetNextTry().AsTime())
	} else {
		o.cfg.Logger.Info("certificate obtained", "host", host, "until", next.GetNotAfter().AsTime(), "directory", next.GetDirectory())
	}
	o.cfg.Metrics.count(next.GetProblem() == "")
	return nil
}

// solvers returns what answers the challenges of an order.
func (o *Obtainer) solvers(host string, leadsTo []string) map[string]acmez.Solver {
	if o.cfg.DNS != nil {
		return map[string]acmez.Solver{acme.ChallengeTypeDNS01: dnsSolver{provider: o.cfg.DNS, check: o.cfg.DNSCheck, log: o.cfg.Logger}}
	}
	return map[string]acmez.Solver{acme.ChallengeTypeHTTP01: solver{server: o.server, host: host, leadsTo: leadsTo}}
}

// reachAny is reach for the first of some hosts that leads to the cluster. The others of a wildcard need not.
func (o *Obtainer) reachAny(ctx context.Context, hosts []string) (nodes []string, problem string) {
	for _, host := range hosts[:min(len(hosts), maxReach)] {
		found, why := o.reach(ctx, host)
		if why == "" {
			return found, ""
		}
		problem = cmp.Or(problem, why)
	}
	return nil, cmp.Or(problem, "no project claims the host any more")
}

// reach returns the nodes that a host leads to, or what is wrong with its DNS records.
func (o *Obtainer) reach(ctx context.Context, host string) (nodes []string, problem string) {
	if o.cfg.SkipResolveCheck {
		return nil, ""
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := o.resolve(ctx, host)
	if err != nil {
		return nil, fmt.Sprintf("the addresses of %s cannot be looked up: %v", host, err)
	}
	return Reaches(host, found, o.addresses(ctx))
}

// resolve returns the addresses of a name; none if the name does not exist.
func (o *Obtainer) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	found, err := o.cfg.Resolver.LookupNetIP(ctx, "ip", name)
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return nil, nil
	}
	return found, err
}

// addresses returns the public addresses of the nodes that are ready.
func (o *Obtainer) addresses(ctx context.Context) []Address {
	var all []Address
	for _, n := range loop.All[*carav1.Node](o.mirror) {
		name := n.GetMetadata().GetName()
		if n.GetStatus().GetState() == api.NodeNotReady {
			continue
		}
		for _, text := range n.GetStatus().GetInfo().GetPublicAddresses() {
			if ip, err := netip.ParseAddr(text); err == nil {
				all = append(all, Address{name, ip})
				continue
			}
			found, err := o.resolve(ctx, text)
			if err != nil {
				o.cfg.Logger.Warn("the public address of a node cannot be looked up", "node", name, "address", text, "error", err)
			}
			for _, ip := range found {
				all = append(all, Address{name, ip})
			}
		}
	}
	return all
}

// first returns the first certificate of a chain.
func first(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, errors.New("the authority sent no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority sent a certificate that cannot be read: %w", err)
	}
	return leaf, nil
}
