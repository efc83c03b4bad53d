package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// advice tells for some errors of etcd what an operator can do.
var advice = map[error]string{ //nolint:gochecknoglobals // a constant
	rpctypes.ErrNoSpace: "etcd's database has reached its quota: compact and defragment it, or raise etcd's --quota-backend-bytes, " +
		"then clear the alarm with: etcdctl alarm disarm",
	rpctypes.ErrRequestTooLarge:  "etcd's --max-request-bytes must be at least 1572864, its default",
	rpctypes.ErrTooManyOps:       "etcd's --max-txn-ops must be at least 128, its default",
	rpctypes.ErrAuthFailed:       "check the user and the password for etcd",
	rpctypes.ErrPermissionDenied: "give the user a role that may read and write the prefix: etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX",
	rpctypes.ErrUserEmpty:        "etcd requires a login: give a user and a password, or a client certificate whose common name is an etcd user",
	rpctypes.ErrCorrupt:          "etcd reports that its members have different data: see etcd's guide to data corruption",
	rpctypes.ErrTooManyRequests:  "etcd's members are overloaded or too slow: check their disks",
}

// lost are the errors of a cluster without a leader.
var lost = []error{ //nolint:gochecknoglobals // a constant
	rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail,
	rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex, rpctypes.ErrUnhealthy, rpctypes.ErrStopped,
}

// silence marks an error of an etcd that does not answer, or has no leader.
type silence struct{ error }

func (s *silence) Unwrap() error { return s.error }

// Silent reports whether an error says that etcd does not answer, or has no leader. It may do so later.
func Silent(err error) bool {
	var s *silence
	return errors.As(err, &s)
}

// explain turns an error of etcd's client into one that says what is wrong and what to do. ctx is the caller's: when it has
// ended, its error is the result.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	known := rpctypes.Error(err)
	for cause, what := range advice {
		if errors.Is(known, cause) {
			return fmt.Errorf("%w: %s", known, what)
		}
	}
	for _, cause := range lost {
		if errors.Is(known, cause) {
			return &silence{fmt.Errorf("%w: check that a majority of etcd's members runs and that they reach each other", known)}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Unavailable {
		return &silence{fmt.Errorf("etcd does not answer (%s): check that its members run and that this machine reaches them", reason(err))}
	}
	return fmt.Errorf("etcd: %w", err)
}

// reason returns the shortest useful text of an error of gRPC.
func reason(err error) string {
	var u unconnected
	switch {
	case errors.As(err, &u):
		return u.cause
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	}
	text := status.Convert(err).Message()
	if cause, found := connectionError(text); found {
		return cause
	}
	return text
}

// unconnected says why a request has found no connection to a member until its time was over. It is not a status of gRPC: etcd's client
// replaces one by the bare error of the context, and then nobody learns that, for example, a certificate has expired.
type unconnected struct{ cause string }

func (u unconnected) Error() string { return u.cause }

func (unconnected) Unwrap() error { return context.DeadlineExceeded }

// withCause returns the error of a request with the last error of the connections that it has waited for.
func withCause(err error) error {
	if status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	if cause, found := connectionError(status.Convert(err).Message()); found {
		return unconnected{cause}
	}
	return err
}

// connectionError finds the error of a connection in a text of gRPC.
func connectionError(text string) (cause string, found bool) {
	_, cause, found = strings.Cut(text, "connection error: desc = ")
	if plain, err := strconv.Unquote(cause); err == nil {
		cause = plain
	}
	return cause, found
}

// transient reports whether a watch may continue after an error, on this member or another.
func transient(err error) bool {
	known := rpctypes.Error(err)
	if errors.Is(known, rpctypes.ErrInvalidAuthToken) || errors.Is(known, rpctypes.ErrAuthOldRevision) {
		return true // the next stream logs in again
	}
	final := []codes.Code{codes.PermissionDenied, codes.InvalidArgument, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss, codes.FailedPrecondition}
	return !slices.Contains(final, status.Code(err))
}

// cancelled converts the reason that etcd gives for the end of a watch, which is only a text.
func cancelled(reason string) error {
	for _, known := range []error{rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCUserEmpty, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCNoLeader} {
		if strings.Contains(reason, status.Convert(known).Message()) {
			return known
		}
	}
	return status.Errorf(codes.Canceled, "etcd ended the watch: %s", reason)
}
