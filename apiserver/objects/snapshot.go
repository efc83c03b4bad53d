package objects

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxSnapshotBytes = 64 << 20
	// MaxSnapshotClaims limits the claims that a snapshot changes.
	MaxSnapshotClaims = 10_000
	// maxHead limits the size of a head, which is stored in its source, in bytes.
	maxHead = 128 << 10
)

// published is the content of a PublishSnapshot stream.
type published struct {
	source, uid string
	head        *carav1.Snapshot
	conditions  []*carav1.Condition
	upserts     []*carav1.ClaimSpec
	absent      []string
	secrets     []*carav1.DeclaredSecret
	secretsRead bool
}

// PublishSnapshot publishes the changes of a source since its last snapshot.
func (s Sources) PublishSnapshot(stream carav1.SourceService_PublishSnapshotServer) error {
	in, err := collect(stream)
	if err != nil {
		return err
	}
	src, err := s.snapshots.publish(stream.Context(), in)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&carav1.PublishSnapshotResponse{ResourceVersion: src.GetMetadata().GetResourceVersion()})
}

// publisher stores snapshots, in one transaction or in parts. A reader that sees a head also sees its claims.
type publisher struct {
	db      *state.DB
	guard   guard.Guard
	staging chan struct{} // has an element while staged claims are written or settled
}

func newPublisher(db *state.DB, g guard.Guard) publisher {
	return publisher{db: db, guard: g, staging: make(chan struct{}, 1)}
}

// publish returns the source with its new head.
func (s publisher) publish(ctx context.Context, in *published) (src *carav1.Source, err error) {
	if err := s.settleStaged(ctx, in.source); err != nil {
		return nil, err
	}
	if err := s.declareSecrets(ctx, in); err != nil {
		return nil, err
	}
	var large []*carav1.Claim
	err = s.db.Transact(ctx, func(t *state.Tx) error {
		claims, err := changedClaims(t, in)
		if large = claims; err != nil || !fitsOne(claims) {
			return err
		}
		for _, c := range claims {
			_, _ = state.Read[*carav1.Claim](t, c.GetMetadata().GetName()) // a condition of the commit, because its status may change
			t.Put(c)
		}
		if src, err = publishHead(t, in); err == nil {
			dropBeside(t, in, claims)
		}
		return err
	})
	if err == nil && src == nil {
		src, err = s.publishParts(ctx, in, large)
	}
	if err == nil {
		err = s.dropSecrets(ctx, in)
	}
	return src, err
}

// collect reads the stream to its end, within limits.
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
			in.secretsRead = msg.GetSecretsRead()
		}
		in.upserts = append(in.upserts, msg.GetUpserts()...)
		in.absent = append(in.absent, msg.GetAbsent()...)
		in.secrets = append(in.secrets, msg.GetSecrets()...)
		size += proto.Size(msg)
		if size > maxSnapshotBytes || len(in.upserts)+len(in.absent) > MaxSnapshotClaims {
			return nil, api.TooLarge("a snapshot may have %d claims and %d MiB: this one has more",
				MaxSnapshotClaims, maxSnapshotBytes>>20)
		}
	}
	if in.head == nil || in.source == "" {
		return nil, api.Invalid("the snapshot", api.Field("head", "is required in the first message, with the source"))
	}
	if fields := validate.Object(in.head); len(fields) > 0 {
		return nil, api.Invalid("the snapshot", fields)
	}
	in.head.Generation = "" // the server sets it
	for _, spec := range in.upserts {
		spec.Source, spec.SourceUid = in.source, in.uid
	}
	return in, nil
}

// changedClaims returns the claims that the snapshot changes, sorted by project name.
func changedClaims(t *state.Tx, in *published) ([]*carav1.Claim, error) {
	claims := map[string]*carav1.Claim{}
	for _, spec := range in.upserts {
		project := spec.GetProject().GetMetadata().GetName()
		if project == "" {
			return nil, api.Invalid("the snapshot", api.Field("upserts", "has a claim without a project's name"))
		}
		if c := changedClaim(t, in, project, spec); c != nil {
			claims[project] = c
		}
	}
	for _, project := range in.absent {
		if c, ok := state.Get[*carav1.Claim](t.Seen, in.source+"/"+project); ok && c.GetSpec().GetPresent() {
			c = proto.CloneOf(c)
			c.Spec.Present, c.Spec.Revision = false, in.head.GetRevision()
			claims[project] = c
		}
	}
	sorted := make([]*carav1.Claim, 0, len(claims))
	for _, project := range slices.Sorted(maps.Keys(claims)) {
		sorted = append(sorted, claims[project])
	}
	return sorted, nil
}

// changedClaim returns a claim with a new spec, or nil if it already has that spec.
func changedClaim(t *state.Tx, in *published, project string, spec *carav1.ClaimSpec) *carav1.Claim {
	name := in.source + "/" + project
	old, ok := state.Get[*carav1.Claim](t.Seen, name)
	switch {
	case !ok:
		return &carav1.Claim{Metadata: &carav1.ObjectMeta{Name: name, Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)}, Spec: spec}
	case proto.Equal(old.GetSpec(), spec):
		return nil
	}
	c := copyOf(old)
	c.Spec = spec
	return c
}

// copyOf returns a copy of a claim that a transaction may write: a commit changes the metadata. The copy shares spec and status, which
// never change, with the claim. The caller may replace them as a whole.
func copyOf(c *carav1.Claim) *carav1.Claim {
	return &carav1.Claim{Metadata: proto.CloneOf(c.GetMetadata()), Spec: c.GetSpec(), Status: c.GetStatus()}
}

// publishHead writes the source's new head.
func publishHead(t *state.Tx, in *published) (*carav1.Source, error) {
	old, err := rules.Named[*carav1.Source](t, in.source, in.uid, "")
	if err != nil {
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
	src := proto.CloneOf(old)
	src.Status = cmp.Or(src.Status, &carav1.SourceStatus{})
	src.Status.Snapshot = shortened(in.head)
	src.Status.Snapshot.PublishTime = timestamppb.New(t.Now)
	for _, c := range in.conditions {
		src.Status.Conditions, _ = api.SetCondition(src.Status.GetConditions(), proto.CloneOf(c), t.Now)
	}
	t.Put(src)
	t.Write(state.Key(state.KindGuard, rules.GuardClaims), &carav1.ObjectMeta{Name: rules.GuardClaims})
	return src, nil
}

// shortened removes errors and warnings from a head that is too large. The count of errors stays.
func shortened(head *carav1.Snapshot) *carav1.Snapshot {
	head = proto.CloneOf(head)
	for proto.Size(head) > maxHead && len(head.GetFileErrors())+len(head.GetWarnings()) > 0 {
		head.FileErrors, head.Warnings = head.GetFileErrors()[:len(head.GetFileErrors())/2], head.GetWarnings()[:len(head.GetWarnings())/2]
	}
	return head
}
