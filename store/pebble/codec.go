package pebble

import (
	"encoding/binary"
	"fmt"

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
