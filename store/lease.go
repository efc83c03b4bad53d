package store

import "context"

// Lease is the right of one server to do one kind of work, in a backend that several servers use. Created is the revision at which
// the server got it, and tells this holder from every other one. The zero value is no lease.
type Lease struct {
	Name    string
	Created int64
}

type leaseKey struct{}

// WithLease returns a context for work that needs a lease. Transactions of that work have the lease as a condition: see Txn.
func WithLease(ctx context.Context, l Lease) context.Context {
	return context.WithValue(ctx, leaseKey{}, l)
}

// LeaseOf returns the lease of the work that ctx belongs to.
func LeaseOf(ctx context.Context) Lease {
	l, _ := ctx.Value(leaseKey{}).(Lease)
	return l
}
