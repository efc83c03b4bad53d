package pebble

import (
	"encoding/binary"
	"strings"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// effect is the change that one operation makes: the operation, and the revision that created its key.
type effect struct {
	op      store.Op
	created int64
}

// index holds every existing key. The committer owns it.
type index map[string]stamp

// check returns the first condition that does not hold, or nil.
func (ix index) check(conditions []store.Condition) error {
	for _, c := range conditions {
		if have := ix[c.Key].modified; have != c.Modified {
			return &store.ConflictError{Key: c.Key, Want: c.Modified, Have: have}
		}
	}
	return nil
}

// apply updates the index with ops at a revision and returns what to write. No effects means that nothing changed.
func (ix index) apply(ops []store.Op, revision int64) []effect {
	effects := make([]effect, 0, len(ops))
	for _, op := range ops {
		have, exists := ix[op.Key]
		switch {
		case op.Delete && !exists:
		case op.Delete:
			delete(ix, op.Key)
			effects = append(effects, effect{op, have.created})
		default:
			if !exists {
				have.created = revision
				op.Key = strings.Clone(op.Key) // the index must not keep the whole request in memory
			}
			ix[op.Key] = stamp{have.created, revision}
			effects = append(effects, effect{op, have.created})
		}
	}
	return effects
}

func write(b *pebbledb.Batch, revision int64, effects []effect) error {
	for i, e := range effects {
		if err := writeObject(b, revision, e); err != nil {
			return err
		}
		if err := writeLog(b, revision, i, e); err != nil {
			return err
		}
	}
	return nil
}

func writeObject(b *pebbledb.Batch, revision int64, e effect) error {
	if e.op.Delete {
		return b.Delete(objectKey(e.op.Key), nil)
	}
	d := b.SetDeferred(1+len(e.op.Key), stampLen+len(e.op.Value))
	d.Key[0] = objectSpace
	copy(d.Key[1:], e.op.Key)
	binary.BigEndian.PutUint64(d.Value, uint64(e.created))
	binary.BigEndian.PutUint64(d.Value[8:], uint64(revision))
	copy(d.Value[stampLen:], e.op.Value)
	return d.Finish()
}

func writeLog(b *pebbledb.Batch, revision int64, n int, e effect) error {
	kind := byte(kindPut)
	if e.op.Delete {
		kind = kindDelete
	}
	d := b.SetDeferred(logPrefixLen+len(e.op.Key), logHeadLen+len(e.op.Value))
	d.Key[0] = logSpace
	binary.BigEndian.PutUint64(d.Key[1:], uint64(revision))
	binary.BigEndian.PutUint32(d.Key[9:], uint32(n))
	copy(d.Key[logPrefixLen:], e.op.Key)
	d.Value[0] = kind
	binary.BigEndian.PutUint64(d.Value[1:], uint64(e.created))
	copy(d.Value[logHeadLen:], e.op.Value)
	return d.Finish()
}
