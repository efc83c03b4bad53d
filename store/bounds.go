package store

import "fmt"

// Limits of every backend. A request beyond a limit gets ErrInvalid with the limit in its message.
const (
	// MaxKey is the longest key or prefix, in bytes.
	MaxKey = 512
	// MaxValue is the largest value, in bytes.
	MaxValue = 512 << 10
	// MaxOps is the maximum number of operations in one transaction.
	MaxOps = 128
	// MaxConditions is the maximum number of conditions in one transaction. A backend with several servers adds those about its
	// lease and its agent.
	MaxConditions = MaxOps - 2
	// MaxTxn is the maximum size of all keys and values in one transaction, in bytes.
	MaxTxn = 1 << 20
)

// ValidateKey returns ErrInvalid for an empty or too long key.
func ValidateKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: empty key", ErrInvalid)
	}
	return ValidatePrefix(key)
}

// ValidatePrefix returns ErrInvalid for a prefix that is longer than any key. The empty prefix matches every key.
func ValidatePrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fmt.Errorf("%w: key %.40q... has %d bytes, at most %d are allowed", ErrInvalid, prefix, len(prefix), MaxKey)
	}
	return nil
}

// Validate returns ErrInvalid unless t has at least one operation, no duplicate key in Do, and is within all limits.
func (t Txn) Validate() error {
	switch {
	case len(t.Do) == 0:
		return fmt.Errorf("%w: transaction without operations", ErrInvalid)
	case len(t.Do) > MaxOps:
		return fmt.Errorf("%w: transaction has %d operations, at most %d are allowed", ErrInvalid, len(t.Do), MaxOps)
	case len(t.If) > MaxConditions:
		return fmt.Errorf("%w: transaction has %d conditions, at most %d are allowed", ErrInvalid, len(t.If), MaxConditions)
	}
	for _, c := range t.If {
		if err := ValidateKey(c.Key); err != nil {
			return err
		}
		if c.Modified < 0 {
			return fmt.Errorf("%w: condition on %s: negative revision %d", ErrInvalid, c.Key, c.Modified)
		}
	}
	if err := validateOps(t.Do); err != nil {
		return err
	}
	if size := t.Size(); size > MaxTxn {
		return fmt.Errorf("%w: transaction has %d bytes, at most %d are allowed", ErrInvalid, size, MaxTxn)
	}
	return nil
}

// Size returns the number of bytes of keys and values in Do.
func (t Txn) Size() int {
	size := 0
	for _, op := range t.Do {
		size += len(op.Key) + len(op.Value)
	}
	return size
}

func validateOps(ops []Op) error {
	for _, op := range ops {
		if err := ValidateKey(op.Key); err != nil {
			return err
		}
		switch {
		case op.Delete && len(op.Value) > 0:
			return fmt.Errorf("%w: delete of %s carries a value", ErrInvalid, op.Key)
		case len(op.Value) > MaxValue:
			return fmt.Errorf("%w: value of %s has %d bytes, at most %d are allowed", ErrInvalid, op.Key, len(op.Value), MaxValue)
		}
	}
	if len(ops) == 1 {
		return nil // fast path without a map: most transactions have one operation
	}
	seen := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if _, twice := seen[op.Key]; twice {
			return fmt.Errorf("%w: key %s appears twice in one transaction", ErrInvalid, op.Key)
		}
		seen[op.Key] = struct{}{}
	}
	return nil
}
