package etcd

import clientv3 "go.etcd.io/etcd/client/v3"

// assembler builds whole transactions from the messages of a watch. etcd splits a large message into fragments, and the end
// of a fragment may be in the middle of a transaction. It never splits a transaction in another way.
type assembler struct {
	open []*clientv3.Event // of the newest revision, whose rest may come
}

// add returns the transactions that are complete after a message, each with all its events, in the order of revisions.
func (a *assembler) add(events []*clientv3.Event, fragment bool) [][]*clientv3.Event {
	var whole [][]*clientv3.Event
	for _, e := range events {
		if len(a.open) > 0 && a.open[0].Kv.ModRevision != e.Kv.ModRevision {
			whole = append(whole, a.open)
			a.open = nil
		}
		a.open = append(a.open, e)
	}
	if !fragment && len(a.open) > 0 {
		whole = append(whole, a.open)
		a.open = nil
	}
	return whole
}
