package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestConflictError(t *testing.T) {
	for _, test := range []struct {
		err  ConflictError
		want string
	}{
		{ConflictError{Key: "a", Have: 3}, "conflict on a: it exists at revision 3 and should not"},
		{ConflictError{Key: "a", Want: 2}, "conflict on a: expected revision 2, it does not exist"},
		{ConflictError{Key: "a", Want: 2, Have: 3}, "conflict on a: expected revision 2, it is at 3"},
	} {
		wrapped := fmt.Errorf("commit: %w", &test.err)
		if !errors.Is(wrapped, ErrConflict) || errors.Is(wrapped, ErrNotFound) {
			t.Errorf("%v is not ErrConflict alone", wrapped)
		}
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestValidateNamesTheBound(t *testing.T) {
	put := func(key string, size int) Txn { return Txn{Do: []Op{{Key: key, Value: make([]byte, size)}}} }
	for _, test := range []struct {
		name string
		txn  Txn
		want string // "" is valid
	}{
		{"smallest", put("k", 0), ""},
		{"longest key, largest value", put(strings.Repeat("k", MaxKey), MaxValue), ""},
		{"nothing to do", Txn{}, "without operations"},
		{"empty key", put("", 1), "empty key"},
		{"long key", put(strings.Repeat("k", MaxKey+1), 1), "has 513 bytes, at most 512"},
		{"large value", put("big", MaxValue+1), "value of big has 524289 bytes, at most 524288"},
		{"twice", Txn{Do: []Op{{Key: "a"}, {Key: "b"}, {Key: "a", Delete: true}}}, "key a appears twice"},
		{"delete with value", Txn{Do: []Op{{Key: "a", Value: []byte("x"), Delete: true}}}, "delete of a carries a value"},
		{"condition", Txn{If: []Condition{{Key: "a", Modified: -2}}, Do: []Op{{Key: "a"}}}, "negative revision -2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.txn.Validate()
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, test.want)
			}
		})
	}
}
