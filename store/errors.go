package store

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound means that a key does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrConflict means that a condition of a transaction did not hold. See ConflictError for which one.
	ErrConflict = errors.New("conflict")
	// ErrCompacted means that a watch cannot resume from its revision. List again and watch from the new revision.
	ErrCompacted = errors.New("revision is not in the change log, list again")
	// ErrInvalid means that an argument is malformed or beyond a limit. A retry does not help.
	ErrInvalid = errors.New("invalid request to the store")
	// ErrLeaseLost means that the work of a transaction is another server's now. This one must stop it.
	ErrLeaseLost = errors.New("this server has lost its lease, and another one may do this work now: nothing was written")
	// ErrAgentMoved means that a transaction is about a node whose agent has connected to a server, or has left it, in the meantime.
	ErrAgentMoved = errors.New("the agent of the node has connected, or has left, in the meantime: nothing was written")
	// ErrClosed means that the store has been closed.
	ErrClosed = errors.New("store is closed")
)

// ConflictError is an ErrConflict that names the failed condition: the key, the Modified revision in the condition, and the
// actual one (0 if the key does not exist).
type ConflictError struct {
	Key        string
	Want, Have int64
}

func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("conflict on %s: it exists at revision %d and should not", e.Key, e.Have)
	case e.Have == 0:
		return fmt.Sprintf("conflict on %s: expected revision %d, it does not exist", e.Key, e.Want)
	default:
		return fmt.Sprintf("conflict on %s: expected revision %d, it is at %d", e.Key, e.Want, e.Have)
	}
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
