// Package dns01 publishes the TXT records with which a certificate authority validates hosts: DNS-01 of RFC 8555. It is the step
// of an order before the authority looks.
//
// A provider publishes a record by a dynamic update of a DNS server (RFC 2136), by a command of the operator, or by a call of a
// web service of the operator. The checker then waits until the servers that the authority will ask have the record.
//
// Invariants:
//
//   - Everything has a limit: the time of each call, the answers, and the time until a record must be there.
//   - A name can have several values at the same time. A provider adds and removes one value and leaves the others.
//   - Errors are for people, and conditions show them. They have no secret: no key, no token, and no part of a URL but its host.
package dns01

import "context"

// Record is a TXT record. Name is in lower case and has no dot at its end.
type Record struct{ Name, Value string }

// Actions of providers, as commands and web services get them.
const (
	present = "present"
	cleanUp = "cleanup"
)

// Provider adds and removes records. Both can be called again for the same record.
type Provider interface {
	// Present adds a record. It returns when the provider has accepted it.
	Present(ctx context.Context, r Record) error
	// CleanUp removes a record. If there is none, it does nothing.
	CleanUp(ctx context.Context, r Record) error
	// Validate returns an error if the provider cannot be used as it is configured.
	Validate() error
}
