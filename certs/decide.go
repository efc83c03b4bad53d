package certs

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Limits of all hosts together. Let's Encrypt allows 300 new orders of an account in 3 hours. Renewals that can wait leave some of
// them to other orders: if the authority recalls many certificates at once, these would otherwise wait behind others.
const (
	orderWindow = 3 * time.Hour
	maxOrders   = 200
	maxPlanned  = 150
)

// Backoff of one host. Let's Encrypt allows 5 failed validations of a host in an hour; with firstRetry there are 4.
const (
	firstRetry = 5 * time.Minute
	lastRetry  = 12 * time.Hour
	// firstLook and lastLook are for failures before an order. They cost the authority nothing.
	firstLook = 15 * time.Second
	lastLook  = 10 * time.Minute
	// maxRetryAfter limits how long the authority can make a host wait.
	maxRetryAfter = 7 * 24 * time.Hour
)

// Limit of the orders of one host while its certificate need not be renewed by its age. Let's Encrypt allows 5 certificates with the
// same names in a week.
const (
	maxEarly    = 4
	earlyWindow = 7 * 24 * time.Hour
)

const (
	keptOrders = 10        // of one host
	keepState  = time.Hour // after the last order of a host that no project claims
)

// Verb is what to do for a host.
type Verb string

// Verbs of the loop.
const (
	Wait   Verb = "Wait"
	Order  Verb = "Order"  // obtain the first certificate, or one of another authority
	Renew  Verb = "Renew"  // replace a certificate that ends soon
	Forget Verb = "Forget" // remove the state of a host that no project claims
)

// Look is what a decision about a host is made from.
type Look struct {
	// Wanted is true if a project claims the host and wants a certificate from the authority.
	Wanted bool
	// Covered is true if a wildcard has a certificate of the authority for the host. Then Wanted is false.
	Covered bool
	// State is the stored state of the host, or nil.
	State *carav1.CertificateOrder
	// Directory is the URL of the authority.
	Directory string
	// Again is true if something has changed since the last attempt, so that one that failed before an order can be repeated.
	Again bool
	// Room is when the limit of orders allows the next one: see Room and MostOrders.
	Room time.Time
	Now  time.Time
}

// Step is a decision. At is when to look again; zero means when something changes.
type Step struct {
	Verb   Verb
	At     time.Time
	Reason string
}

// Decide decides what to do for a host.
func Decide(l Look) Step {
	if !l.Wanted {
		return unwanted(l)
	}
	s := l.State
	valid := s.GetNotAfter() != nil && l.Now.Before(s.GetNotAfter().AsTime())
	if valid && s.GetCertificateDirectory() == l.Directory && l.Now.Before(s.GetRenewAt().AsTime()) {
		return Step{Wait, s.GetRenewAt().AsTime(), "the certificate is valid until " + clock(s.GetNotAfter())}
	}
	// The failures at another authority say nothing about this one.
	waits := s.GetNextTry() != nil && s.GetDirectory() == l.Directory && !(l.Again && s.GetBeforeOrder())
	if next := s.GetNextTry(); waits && l.Now.Before(next.AsTime()) {
		return Step{Wait, next.AsTime(), s.GetProblem()}
	}
	if pause := orderPause(s, l.Now); s.GetCertificateDirectory() == l.Directory && l.Now.Before(pause) {
		return Step{Wait, pause, "the certificate is new, though the clock or the authority says that it must be renewed"}
	}
	if l.Now.Before(l.Room) {
		return Step{Wait, l.Room, full(s, l.Directory, l.Now)}
	}
	switch {
	case s.GetNotAfter() == nil:
		return Step{Verb: Order, Reason: "the host has no certificate"}
	case s.GetCertificateDirectory() != l.Directory:
		return Step{Verb: Order, Reason: "the certificate is from " + s.GetCertificateDirectory()}
	case !valid:
		return Step{Verb: Renew, Reason: "the certificate ended at " + clock(s.GetNotAfter())}
	case s.GetRecalled():
		return Step{Verb: Renew, Reason: "the authority wants the certificate to be replaced at once"}
	default:
		return Step{Verb: Renew, Reason: "the certificate ends at " + clock(s.GetNotAfter())}
	}
}

// orderPause returns when a host whose last order succeeded can have the next one. A clock that is wrong, an authority with
// another clock, or one that wants each certificate to be replaced at once, would otherwise cause one order after the other.
func orderPause(s *carav1.CertificateOrder, now time.Time) time.Time {
	n := len(s.GetOrders())
	if n == 0 || s.GetProblem() != "" {
		return time.Time{}
	}
	from, to := s.GetNotBefore().AsTime(), s.GetNotAfter().AsTime()
	pause := s.GetOrders()[n-1].AsTime().Add(min(time.Hour, to.Sub(from)/3))
	if early := now.Before(RenewAt(s.GetMetadata().GetName(), from, to)); early && n >= maxEarly {
		pause = later(pause, s.GetOrders()[n-maxEarly].AsTime().Add(earlyWindow))
	}
	return pause
}

// unwanted decides for a host that no project claims. Its certificate is kept for the next project until it would be
// renewed. Its failures are kept for a while, so that a project that comes and goes does not order again each time.
func unwanted(l Look) Step {
	s := l.State
	if s == nil {
		return Step{Verb: Wait, Reason: "no project claims the host"}
	}
	until := l.Now
	if l.Covered { // agents would use the older certificate as long as it is there
		return Step{Verb: Forget, Reason: "the certificate of a wildcard is in use"}
	}
	if s.GetNotAfter() != nil {
		until = later(until, s.GetRenewAt().AsTime())
	}
	if n := len(s.GetOrders()); n > 0 {
		until = later(until, s.GetOrders()[n-1].AsTime().Add(keepState))
	}
	if l.Now.Before(until) {
		return Step{Wait, until, "no project claims the host: its state is kept until " + until.UTC().Format(time.RFC3339)}
	}
	return Step{Verb: Forget, Reason: "no project claims the host"}
}

// MostOrders returns how many orders of all hosts leave room for one of a host with a state: fewer if its certificate is good for a
// while, and the authority has not recalled it.
func MostOrders(s *carav1.CertificateOrder, directory string, now time.Time) int {
	from, to := s.GetNotBefore().AsTime(), s.GetNotAfter().AsTime()
	if s.GetNotAfter() == nil || s.GetCertificateDirectory() != directory || s.GetRecalled() || to.Sub(now) < to.Sub(from)/10 {
		return maxOrders
	}
	return maxPlanned
}

// full returns why a host has to wait for room.
func full(s *carav1.CertificateOrder, directory string, now time.Time) string {
	most := MostOrders(s, directory, now)
	if most < maxOrders {
		return fmt.Sprintf("the cluster has made at least %d orders in %s: the last %d of %d are kept for hosts that cannot wait",
			most, orderWindow, maxOrders-most, maxOrders)
	}
	return fmt.Sprintf("the cluster has made %d orders in %s: the authority would refuse more", most, orderWindow)
}

// Room returns when the next order can be made: the zero time if there is room now. orders are the times of all orders, in any
// order. most is how many there can be.
func Room(orders []time.Time, now time.Time, most int) time.Time {
	recent := slices.DeleteFunc(slices.Clone(orders), func(at time.Time) bool { return !at.After(now.Add(-orderWindow)) })
	if len(recent) < most {
		return time.Time{}
	}
	slices.SortFunc(recent, time.Time.Compare)
	return recent[len(recent)-most].Add(orderWindow)
}

// RenewAt returns when to renew a certificate: when a third of its life is left. Hosts whose certificates are of the same
// time are spread over a thirtieth of their lives, always in the same way.
func RenewAt(host string, from, to time.Time) time.Time {
	life := to.Sub(from)
	return to.Add(-life/3 - share(life/30, host)).Truncate(time.Second)
}

// share returns a part of d that is always the same for a host, and evenly spread over many hosts.
func share(d time.Duration, host string) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(host)) // never fails
	return time.Duration(float64(d) * float64(h.Sum32()) / (1 << 32))
}

// Failure is why an attempt failed.
type Failure struct {
	// Problem says what is wrong and what to do, in plain words.
	Problem string
	// Ordered is true if the authority has got an order.
	Ordered bool
	// RetryAfter is the time that the authority named; zero if it named none.
	RetryAfter time.Time
}

const maxProblem = 1000 // bytes

// Failed returns the state of a host after a failed attempt. The certificate that it may have stays.
func Failed(old *carav1.CertificateOrder, directory string, f Failure, now time.Time) *carav1.CertificateOrder {
	next := proto.CloneOf(old)
	if next.GetDirectory() != directory {
		next.Failures = 0
	}
	next.Directory, next.Failures = directory, next.Failures+1
	next.Problem = text.Clip(text.Line(f.Problem), maxProblem)
	next.BeforeOrder = !f.Ordered
	first, last := firstLook, lastLook
	if f.Ordered {
		first, last = firstRetry, lastRetry
		next.Orders = withOrder(next.Orders, now)
	}
	at := later(now.Add(backoff(first, last, next.GetFailures())), f.RetryAfter)
	if most := now.Add(maxRetryAfter); at.After(most) {
		at = most
	}
	next.NextTry = timestamppb.New(at)
	return next
}

// Succeeded returns the state of a host after an attempt that succeeded.
func Succeeded(old *carav1.CertificateOrder, directory string, from, to, now time.Time) *carav1.CertificateOrder {
	next := proto.CloneOf(old)
	next.Directory, next.CertificateDirectory = directory, directory
	next.NotBefore, next.NotAfter = timestamppb.New(from), timestamppb.New(to)
	next.RenewAt = timestamppb.New(RenewAt(old.GetMetadata().GetName(), from, to))
	next.Problem, next.Failures, next.NextTry, next.BeforeOrder = "", 0, nil, false
	next.Recalled, next.RecallUrl = false, ""
	next.Orders = withOrder(next.Orders, now)
	return next
}

// backoff returns the wait after the given number of failures.
func backoff(first, last time.Duration, failures int32) time.Duration {
	return min(last, first<<min(failures-1, 10))
}

func withOrder(orders []*timestamppb.Timestamp, now time.Time) []*timestamppb.Timestamp {
	orders = append(orders, timestamppb.New(now))
	return orders[max(0, len(orders)-keptOrders):]
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func clock(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) }
