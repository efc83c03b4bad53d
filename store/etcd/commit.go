package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	a := attempt{Txn: t, keys: s.keys}
	answer, err := s.client.Txn(bounded).If(a.conditions()...).Then(a.operations()...).Else(a.lookups()...).Commit()
	if err != nil {
		return 0, s.failedWrite(ctx, err)
	}
	if !answer.Succeeded {
		err := a.conflict(answer)
		if errors.Is(err, store.ErrLeaseLost) {
			s.lose(t.Lease)
		}
		return 0, err
	}
	s.health.wrote()
	if !changes(answer) {
		return s.seen.Load(), nil
	}
	s.saw(answer.Header.Revision)
	return answer.Header.Revision, nil
}

// attempt is a transaction as etcd gets it.
type attempt struct {
	store.Txn
	keys keys
}

// conditions returns those of the transaction, that the store still has the lease, and that the agent is still where it was.
func (a attempt) conditions() []clientv3.Cmp {
	out := make([]clientv3.Cmp, 0, len(a.If)+2)
	for _, c := range a.If {
		out = append(out, clientv3.Compare(clientv3.ModRevision(a.keys.object(c.Key)), "=", c.Modified))
	}
	if a.Lease.Name != "" {
		out = append(out, holds(a.keys, a.Lease))
	}
	if a.Agent.Node != "" {
		out = append(out, clientv3.Compare(clientv3.ModRevision(a.keys.node(a.Agent.Node)), "=", a.Agent.Modified))
	}
	return out
}

func (a attempt) operations() []clientv3.Op {
	out := make([]clientv3.Op, 0, len(a.Do))
	for _, op := range a.Do {
		if op.Delete {
			out = append(out, clientv3.OpDelete(a.keys.object(op.Key)))
		} else {
			out = append(out, clientv3.OpPut(a.keys.object(op.Key), string(op.Value)))
		}
	}
	return out
}

// lookups reads what conflict needs to name the condition that did not hold, in the same transaction.
func (a attempt) lookups() []clientv3.Op {
	out := make([]clientv3.Op, 0, len(a.If)+1)
	for _, c := range a.If {
		out = append(out, clientv3.OpGet(a.keys.object(c.Key), clientv3.WithKeysOnly()))
	}
	if a.Lease.Name != "" {
		out = append(out, clientv3.OpGet(a.keys.lease(a.Lease.Name), clientv3.WithKeysOnly()))
	}
	return out
}

// conflict returns ErrLeaseLost, an error for the first condition that did not hold, or ErrAgentMoved.
func (a attempt) conflict(answer *clientv3.TxnResponse) error {
	if a.Lease.Name != "" {
		if firstKV(answer.Responses[len(a.If)].GetResponseRange().Kvs).GetCreateRevision() != a.Lease.Created {
			return store.ErrLeaseLost
		}
	}
	for i, c := range a.If {
		if have := firstKV(answer.Responses[i].GetResponseRange().Kvs).GetModRevision(); have != c.Modified {
			return &store.ConflictError{Key: c.Key, Want: c.Modified, Have: have}
		}
	}
	if a.Agent.Node != "" {
		return store.ErrAgentMoved
	}
	return errors.New("etcd refused a transaction whose conditions all hold: report this")
}

// changes reports whether a transaction wrote or deleted a key.
func changes(answer *clientv3.TxnResponse) bool {
	for _, r := range answer.Responses {
		switch r := r.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			return true
		case *pb.ResponseOp_ResponseDeleteRange:
			if r.ResponseDeleteRange.Deleted > 0 {
				return true
			}
		}
	}
	return false
}

// Compact implements store.Store. It drops the history of the whole etcd cluster, also of other prefixes.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if revision < 0 {
		return fmt.Errorf("%w: negative revision %d", store.ErrInvalid, revision)
	}
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if revision == 0 {
		return nil
	}
	_, err = s.client.Compact(bounded, revision)
	switch known := rpctypes.Error(err); {
	case errors.Is(known, rpctypes.ErrCompacted):
		return nil
	case errors.Is(known, rpctypes.ErrFutureRev):
		return fmt.Errorf("%w: compact up to revision %d, which the store has not reached", store.ErrInvalid, revision)
	case errors.Is(known, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%w: this etcd lets only its root user compact: start it with --auto-compaction-mode periodic --auto-compaction-retention 10m", known)
	}
	return s.failed(ctx, err)
}
