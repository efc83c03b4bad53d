package pebble

import (
	"encoding/binary"
	"fmt"
	"strings"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// formatVersion is the version of the layout that this code writes. It increases when older versions cannot read the data.
const formatVersion = 1

const (
	metaSpace   = 'm'
	objectSpace = 'o'
	logSpace    = 'l'

	stampLen     = 16 // created, modified
	logPrefixLen = 1 + 8 + 4
	logHeadLen   = 1 + 8 // kind, created

	metaFormat    = "format"
	metaRevision  = "revision"
	metaCompacted = "compacted"

	kindPut    = 0
	kindDelete = 1
)

func metaKey(name string) []byte { return append([]byte{metaSpace}, name...) }

func objectKey(key string) []byte { return append([]byte{objectSpace}, key...) }

// logStart is the smallest log key of a revision.
func logStart(revision int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{logSpace}, uint64(revision))
}

// after returns the smallest key above all keys that start with prefix. There is one, because a prefix begins with a space
// byte, which is never 0xff.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

func encodeCounter(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func decodeCounter(name string, b []byte) (int64, error) {
	if len(b) != 8 || b[0]&0x80 != 0 {
		return 0, fmt.Errorf("counter m/%s is corrupt (%x): restore the data directory from a backup", name, b)
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

type stamp struct{ created, modified int64 }

func decodeStamp(key string, b []byte) (stamp, []byte, error) {
	if len(b) < stampLen {
		return stamp{}, nil, fmt.Errorf("object %s is corrupt (%d bytes): restore the data directory from a backup", key, len(b))
	}
	s := stamp{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
	return s, b[stampLen:], nil
}

// decodeLogKey splits a key of the log into its revision and the object's key. The object's key shares k's memory.
func decodeLogKey(k []byte) (int64, []byte, error) {
	if len(k) <= logPrefixLen || k[0] != logSpace {
		return 0, nil, fmt.Errorf("change log key %x is corrupt: restore the data directory from a backup", k)
	}
	return int64(binary.BigEndian.Uint64(k[1:])), k[logPrefixLen:], nil
}

// decodeEvent builds the event of a log entry. It copies key and b.
func decodeEvent(revision int64, key, b []byte) (store.Event, error) {
	if len(b) < logHeadLen || b[0] > kindDelete {
		return store.Event{}, fmt.Errorf("change log entry of %s at revision %d is corrupt: restore the data directory from a backup", key, revision)
	}
	kv := store.KV{Key: string(key), Created: int64(binary.BigEndian.Uint64(b[1:])), Modified: revision}
	if b[0] == kindDelete {
		return store.Event{Delete: true, KV: kv}, nil
	}
	kv.Value = append(make([]byte, 0, len(b)-logHeadLen), b[logHeadLen:]...)
	return store.Event{KV: kv}, nil
}

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
