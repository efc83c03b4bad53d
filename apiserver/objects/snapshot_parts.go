package objects

import (
	"context"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits of one part. A transaction must fit into the limits of the store: it has two writes for each claim, three for each Secret,
// and two for a head, whose source it also has.
const (
	partClaims  = 50
	partSecrets = 20
	partBytes   = 256 << 10
	// partsParallel is how many parts are written concurrently, so that the store can sync them together.
	partsParallel = 8
)

// fitting returns how many of the first objects fit into a number and into a size in bytes.
func fitting[T proto.Message](objects []T, most, room int) (n int) {
	for n < min(len(objects), most) {
		if room -= proto.Size(objects[n]); room < 0 {
			break
		}
		n++
	}
	return n
}

// parts splits objects into parts that fit into a transaction. A part has at least one object.
func parts[T proto.Message](objects []T, most int) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(objects) > 0 {
			n := max(1, fitting(objects, most, partBytes))
			if !yield(objects[:n]) {
				return
			}
			objects = objects[n:]
		}
	}
}

// fitsOne reports whether the head and its claims fit into one transaction.
func fitsOne(claims []*carav1.Claim) bool {
	for part := range parts(claims, partClaims) {
		return len(part) == len(claims)
	}
	return true
}

// inParts writes each part in a transaction of its own: the first part before the others, then several concurrently. So the first
// object is always the first that is written, and the first that a sweep removes: as long as it is there, no sweep has begun.
func inParts[T proto.Message](ctx context.Context, s publisher, objects []T, write func(*state.Tx, []T)) error {
	commit := func(ctx context.Context, part []T) error {
		return s.db.Transact(ctx, func(t *state.Tx) error { write(t, part); return nil })
	}
	all := slices.Collect(parts(objects, partClaims))
	if len(all) == 0 {
		return nil
	}
	if err := commit(ctx, all[0]); err != nil {
		return err
	}
	work, ctx := s.guard.Group(ctx, "PublishSnapshot", partsParallel)
	for _, part := range all[1:] {
		work.Go(func() error { return commit(ctx, part) })
	}
	return work.Wait()
}

// alone runs work while no other call writes or settles staged claims, so a sweep never runs during a publication.
func (s publisher) alone(ctx context.Context, work func() error) error {
	select {
	case s.staging <- struct{}{}:
		defer func() { <-s.staging }()
		return work()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishParts stages the claims, writes the head that activates them, and folds them: see package state. It returns the
// source with its new head.
func (s publisher) publishParts(ctx context.Context, in *published, claims []*carav1.Claim) (src *carav1.Source, err error) {
	err = s.alone(ctx, func() error {
		if src, err = s.publishStaged(ctx, in, claims); err != nil {
			return err
		}
		return s.settleAlone(ctx, in.source)
	})
	return src, err
}

func (s publisher) publishStaged(ctx context.Context, in *published, claims []*carav1.Claim) (src *carav1.Source, err error) {
	in.head.Generation = state.NewUID()
	name := func(c *carav1.Claim) string {
		return state.StagedName(in.source, in.head.GetGeneration(), c.GetSpec().GetProject().GetMetadata().GetName())
	}
	err = inParts(ctx, s, claims, func(t *state.Tx, part []*carav1.Claim) {
		for _, c := range part {
			t.Put(&carav1.StagedClaim{Metadata: &carav1.ObjectMeta{Name: name(c)}, Claim: c})
		}
	})
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(t *state.Tx) error {
		if _, ok := state.Read[*carav1.StagedClaim](t, name(claims[0])); !ok { // a sweep removes the first claim first
			return api.Conflict("another snapshot of source %q was published meanwhile", in.source)
		}
		src, err = publishHead(t, in)
		return err
	})
	return src, err
}

// SettleSnapshots settles the staged claims that a killed server left.
func (s *Service) SettleSnapshots(ctx context.Context) error { return s.snapshots.settleAll(ctx) }

func (s publisher) settleAll(ctx context.Context) error {
	for _, source := range s.db.Cache.View().StagedSources() {
		if err := s.settleStaged(ctx, source); err != nil {
			return err
		}
	}
	return nil
}

// settleStaged folds the active staged claims of a source and removes the others, which an interrupted publication left.
func (s publisher) settleStaged(ctx context.Context, source string) error {
	if staged := state.List[*carav1.StagedClaim](s.db.Cache, source+"/"); len(staged) == 0 {
		return nil
	}
	return s.alone(ctx, func() error { return s.settleAlone(ctx, source) })
}

func (s publisher) settleAlone(ctx context.Context, source string) error {
	staged := state.List[*carav1.StagedClaim](s.db.Cache, source+"/")
	return inParts(ctx, s, staged, func(t *state.Tx, part []*carav1.StagedClaim) { settlePart(t, source, part) })
}

// settlePart settles staged claims that fit into one transaction.
func settlePart(t *state.Tx, source string, part []*carav1.StagedClaim) {
	src, _ := state.Read[*carav1.Source](t, source)
	active := state.StagedName(source, src.GetStatus().GetSnapshot().GetGeneration(), "")
	for _, staged := range part {
		name := staged.GetMetadata().GetName()
		if _, ok := state.Read[*carav1.StagedClaim](t, name); !ok {
			continue // another call settled it
		}
		if project, folds := strings.CutPrefix(name, active); folds {
			c, _ := state.Read[*carav1.Claim](t, source+"/"+project)
			t.Put(copyOf(c))
		}
		t.Remove(state.KindStaged, name)
	}
}
