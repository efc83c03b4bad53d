package apiserver

import (
	"errors"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxSnapshotBytes  = 64 << 20
	maxSnapshotClaims = 10_000
)

// published is what a stream of PublishSnapshot brought.
type published struct {
	source, uid string
	head        *carav1.Snapshot
	conditions  []*carav1.Condition
	upserts     []*carav1.ClaimSpec
	absent      []string
}

// PublishSnapshot takes what changed in a source against its last snapshot, and commits it in one transaction: whoever
// sees the head sees its claims.
func (s sourceService) PublishSnapshot(stream carav1.SourceService_PublishSnapshotServer) error {
	in, err := collect(stream)
	if err != nil {
		return err
	}
	var src *carav1.Source
	err = s.db.Transact(stream.Context(), func(t *state.Tx) (err error) {
		if src, err = publishSnapshot(t, in); err != nil {
			return err
		}
		t.Put(src)
		return nil
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&carav1.PublishSnapshotResponse{ResourceVersion: src.GetMetadata().GetResourceVersion()})
}

// collect reads the stream to its end, within bounds.
func collect(stream carav1.SourceService_PublishSnapshotServer) (*published, error) {
	in, size := &published{}, 0
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if in.head == nil {
			in.source, in.uid, in.head, in.conditions = msg.GetSource(), msg.GetSourceUid(), msg.GetHead(), msg.GetConditions()
		}
		in.upserts = append(in.upserts, msg.GetUpserts()...)
		in.absent = append(in.absent, msg.GetAbsent()...)
		size += proto.Size(msg)
		if size > maxSnapshotBytes || len(in.upserts)+len(in.absent) > maxSnapshotClaims {
			return nil, api.TooLarge("a snapshot may have %d claims and %d MiB: this one has more",
				maxSnapshotClaims, maxSnapshotBytes>>20)
		}
	}
	if in.head == nil || in.source == "" {
		return nil, api.Invalid("the snapshot", api.Field("head", "is required in the first message, with the source"))
	}
	if fields := api.Validate(in.head); len(fields) > 0 {
		return nil, api.Invalid("the snapshot", fields)
	}
	return in, nil
}

// publishSnapshot plans the snapshot and returns the source with its new head.
func publishSnapshot(t *state.Tx, in *published) (*carav1.Source, error) {
	old, ok := state.Read[*carav1.Source](t, in.source)
	if !ok {
		return nil, notFound(api.KindSource, in.source)
	}
	if err := mustBe(old, in.uid, ""); err != nil {
		return nil, err
	}
	if err := notDeleted(old); err != nil {
		return nil, err
	}
	have := old.GetStatus().GetSnapshot().GetSequence()
	if in.head.GetSequence() != have+1 {
		return nil, api.Conflict("source %q has snapshot %d: the next is %d, not %d",
			in.source, have, have+1, in.head.GetSequence())
	}
	for _, spec := range in.upserts {
		if err := putClaim(t, in, spec); err != nil {
			return nil, err
		}
	}
	for _, project := range in.absent {
		c, ok := state.Read[*carav1.Claim](t, in.source+"/"+project)
		if !ok || !c.GetSpec().GetPresent() {
			continue
		}
		c = proto.CloneOf(c)
		c.Spec.Present, c.Spec.Revision = false, in.head.GetRevision()
		t.Put(c)
	}
	src := proto.CloneOf(old)
	if src.Status == nil {
		src.Status = &carav1.SourceStatus{}
	}
	src.Status.Snapshot = proto.CloneOf(in.head)
	src.Status.Snapshot.PublishTime = timestamppb.New(t.Now)
	for _, c := range in.conditions {
		src.Status.Conditions, _ = api.SetCondition(src.Status.GetConditions(), proto.CloneOf(c), t.Now)
	}
	return src, nil
}

// putClaim writes one claim, unless it is there as it is.
func putClaim(t *state.Tx, in *published, spec *carav1.ClaimSpec) error {
	project := spec.GetProject().GetMetadata().GetName()
	if project == "" {
		return api.Invalid("the snapshot", api.Field("upserts", "has a claim without a project's name"))
	}
	name := in.source + "/" + project
	spec = proto.CloneOf(spec)
	spec.Source, spec.SourceUid = in.source, in.uid
	old, ok := state.Read[*carav1.Claim](t, name)
	if ok && proto.Equal(old.GetSpec(), spec) {
		return nil
	}
	c := &carav1.Claim{Metadata: &carav1.ObjectMeta{Name: name, Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)}}
	if ok {
		c = proto.CloneOf(old)
	}
	c.Spec = spec
	t.Put(c)
	return nil
}
