package etcd

import "bytes"

const (
	formatVersion = "1" // of the layout in etcd; it increases when older versions cannot read the data

	formatName  = "format"
	lockName    = "lock"
	sharedName  = "shared"
	partialName = "importing"
	serverSpace = "servers/"
	leaseSpace  = "locks/"
	nodeSpace   = "n/"      // only listedName is between it and objectSpace: see watch.open
	listedName  = "nlisted" // see watch.announceListing
	objectSpace = "o/"
)

// keys knows where everything is below a prefix.
type keys struct{ prefix string }

func (k keys) format() string           { return k.prefix + formatName }
func (k keys) lock() string             { return k.prefix + lockName }
func (k keys) shared() string           { return k.prefix + sharedName }
func (k keys) partial() string          { return k.prefix + partialName }
func (k keys) server(id string) string  { return k.prefix + serverSpace + id }
func (k keys) lease(name string) string { return k.prefix + leaseSpace + name }
func (k keys) node(name string) string  { return k.prefix + nodeSpace + name }
func (k keys) listed() string           { return k.prefix + listedName }
func (k keys) object(key string) string { return k.prefix + objectSpace + key }

// isObject reports whether a key in etcd is that of an object.
func (k keys) isObject(raw []byte) bool {
	return bytes.HasPrefix(raw[len(k.prefix):], []byte(objectSpace))
}

// name returns the key of an object, from its key in etcd. The result has memory of its own: the reader may keep it.
func (k keys) name(raw []byte) string { return string(raw[len(k.prefix)+len(objectSpace):]) }

// span returns the range of objects that start with prefix and sort after a key.
func (k keys) span(prefix, after string) (from, to string) {
	from, to = k.object(prefix), end(k.object(prefix))
	if next := k.object(after) + "\x00"; after != "" && next > from {
		from = next
	}
	return from, to
}

// end returns the smallest key above all keys that start with prefix. There is one, because a prefix begins with a slash.
func end(prefix string) string {
	b := []byte(prefix)
	for b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	b[len(b)-1]++
	return string(b)
}
