package store

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that a key does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrConflict says that a condition of a transaction did not hold; see ConflictError for which one.
	ErrConflict = errors.New("conflict")
	// ErrCompacted says that a watch cannot continue from where it was: list again and watch from that revision.
	ErrCompacted = errors.New("revision is not in the change log, list again")
	// ErrInvalid says that an argument is malformed or out of bounds. Trying again does not help.
	ErrInvalid = errors.New("invalid request to the store")
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("store is closed")
)

// ConflictError names the condition that did not hold: the key, the Modified that was wanted, and the one it has (0
// when the key does not exist). It is ErrConflict.
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

// Is makes every ConflictError an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
