package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/store"
)

const (
	largestFragment = 64 << 20 // a fragment is as large as etcd's --max-request-bytes allows
	firstRetry      = 100 * time.Millisecond
	lastRetry       = 2 * time.Second
)

var errStopped = errors.New("the reader has stopped")

// Watch implements store.Store. While etcd cannot be reached, it waits; see Err.
func (s *Store) Watch(ctx context.Context, after int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		if after < 0 {
			yield(store.Change{}, fmt.Errorf("%w: negative revision %d", store.ErrInvalid, after))
			return
		}
		w := &watch{s: s, at: after, yield: yield}
		if err := w.run(ctx); !errors.Is(err, errStopped) {
			yield(store.Change{}, err)
		}
	}
}

// watch is one Watch. Its reader's goroutine owns it.
type watch struct {
	s       *Store
	at      int64 // everything up to this revision was yielded
	yield   func(store.Change, error) bool
	advance bool // the last stream has yielded something
}

// run opens one stream after the other until the watch ends, and returns why.
func (w *watch) run(ctx context.Context) error {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := w.stream(ctx)
		switch {
		case errors.Is(err, errStopped):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case w.s.closed.Err() != nil:
			return store.ErrClosed
		case errors.Is(err, store.ErrCompacted):
			return err
		case !transient(err):
			return explain(ctx, err)
		}
		if w.advance {
			wait = firstRetry
		}
		if err := w.s.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// stream reads one stream until it ends, and returns why.
func (w *watch) stream(ctx context.Context) error {
	w.advance = false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.s.closed, cancel)() //nolint:contextcheck // it also ends with the store
	stream, err := w.open(ctx)
	if err != nil {
		return err
	}
	parts := &assembler{}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := ended(m); err != nil {
			return err
		}
		if err := w.deliver(ctx, parts.add(m.Events, m.Fragment)); err != nil {
			return err
		}
	}
}

// open starts a stream at the newest yielded revision and checks that etcd has reached it.
func (w *watch) open(ctx context.Context) (pb.Watch_WatchClient, error) {
	// A member without a leader would tell nothing, and not say so, unless the stream requires one.
	stream, err := pb.NewWatchClient(w.s.client.ActiveConnection()).Watch(
		clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(largestFragment), grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	from, to := w.s.keys.node(""), end(w.s.keys.object("")) // with the holders of agents: see Directory.Hold
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(from), RangeEnd: []byte(to), StartRevision: max(w.at, w.s.first), Fragment: true,
	}}}
	if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) { // Recv has the reason of EOF
		return nil, err
	}
	created, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := ended(created); err != nil {
		return nil, err
	}
	if created.Header.Revision < w.at { // this member is behind, or the revision is from a store that a backup has replaced
		if err := w.checkReached(ctx); err != nil {
			return nil, err
		}
	}
	w.announceListing(ctx)
	return stream, nil
}

// announceListing writes a key, so that the watches of all servers reach the revision from which this one continues. Only a listing needs
// it: etcd also counts changes that no watch tells, such as those of leases and of other programs. Without the key, a caller with that
// revision would wait at another server until the next change.
func (w *watch) announceListing(ctx context.Context) {
	if w.at <= w.s.seen.Load() {
		return
	}
	bounded, cancel, err := w.s.begin(ctx)
	if err == nil {
		defer cancel()
		_, err = w.s.client.Put(bounded, w.s.keys.listed(), "")
	}
	if err != nil && ctx.Err() == nil {
		w.s.cfg.Logger.Warn("the revision of a listing is not announced: until the next change, watches that continue at another server from this revision end", "rev", w.at, "error", err)
	}
}

// checkReached returns ErrCompacted unless the cluster has reached the revision.
func (w *watch) checkReached(ctx context.Context) error {
	bounded, cancel, err := w.s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	answer, err := w.s.client.Get(bounded, w.s.keys.format(), clientv3.WithCountOnly())
	if err == nil && answer.Header.Revision < w.at {
		return store.ErrCompacted
	}
	return err
}

// ended returns why etcd has ended a watch, or nil.
func ended(m *pb.WatchResponse) error {
	switch {
	case m.CompactRevision != 0:
		return store.ErrCompacted
	case m.Canceled && m.CancelReason != "":
		return cancelled(m.CancelReason)
	case m.Canceled:
		return rpctypes.ErrGRPCWatchCanceled
	}
	return nil
}

// deliver yields transactions that are newer than what was yielded.
func (w *watch) deliver(ctx context.Context, whole [][]*clientv3.Event) error {
	for len(whole) > 0 && whole[0][0].Kv.ModRevision <= w.at {
		whole = whole[1:]
	}
	created, err := w.createdRevisions(ctx, whole)
	if err != nil {
		return err
	}
	for n, events := range whole {
		c := store.Change{Revision: events[0].Kv.ModRevision, More: n < len(whole)-1}
		if w.s.keys.isObject(events[0].Kv.Key) { // a transaction has only objects, or none
			c.Events = make([]store.Event, len(events))
		}
		for i, e := range events[:len(c.Events)] {
			if c.Events[i] = (store.Event{KV: w.s.keys.kv(e.Kv)}); e.Type == clientv3.EventTypeDelete {
				c.Events[i].Delete, c.Events[i].KV.Value = true, nil
				c.Events[i].KV.Created = created[e]
			}
		}
		w.s.saw(c.Revision)
		w.at, w.advance = c.Revision, true
		if !w.yield(c, nil) {
			return errStopped
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// createdRevisions looks up when deleted keys were created, which etcd's events do not tell.
func (w *watch) createdRevisions(ctx context.Context, whole [][]*clientv3.Event) (map[*clientv3.Event]int64, error) {
	var deleted []*clientv3.Event
	for _, events := range whole {
		for _, e := range events {
			if e.Type == clientv3.EventTypeDelete && w.s.keys.isObject(e.Kv.Key) {
				deleted = append(deleted, e)
			}
		}
	}
	created := make(map[*clientv3.Event]int64, len(deleted))
	for len(deleted) > 0 {
		n := min(len(deleted), store.MaxOps)
		if err := w.lookUpCreated(ctx, deleted[:n], created); err != nil {
			return nil, err
		}
		deleted = deleted[n:]
	}
	return created, nil
}

// lookUpCreated reads the last version before each deletion, in one transaction.
func (w *watch) lookUpCreated(ctx context.Context, deleted []*clientv3.Event, created map[*clientv3.Event]int64) error {
	bounded, cancel, err := w.s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	ops := make([]clientv3.Op, len(deleted))
	for i, e := range deleted {
		ops[i] = clientv3.OpGet(string(e.Kv.Key), clientv3.WithRev(e.Kv.ModRevision-1), clientv3.WithKeysOnly())
	}
	answer, err := w.s.client.Txn(bounded).Then(ops...).Commit()
	if errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) {
		return store.ErrCompacted
	}
	if err != nil {
		return err
	}
	for i, e := range deleted {
		created[e] = firstKV(answer.Responses[i].GetResponseRange().Kvs).GetCreateRevision()
	}
	return nil
}
