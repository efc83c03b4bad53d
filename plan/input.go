package plan

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Input is all that a plan for one source is made of. Nothing in it is changed. Once the source is being deleted, every
// project is in Rows.
type Input struct {
	Source *carav1.Source
	// Rows that may need something.
	Rows []Row
	// Settled counts the projects that are left out of Rows because they are in place and known to be so.
	Settled int
	// Check asks the server about every project, also about those in place: the source's spec has changed, and with it
	// what the source may have.
	Check bool
	Now   time.Time
}

// Row is all that is known about one project that the source claims, claimed or owns. Absent parts are nil.
type Row struct {
	Name string
	// Claim is what this source declares. Nil if the source owns the project and declares nothing about it.
	Claim *carav1.Claim
	// Want is the claim's hash, in the version that Live is in.
	Want string
	// Generation of the source's spec.
	Generation int32
	// Status is what became of the claim: its own, or what was written since.
	Status *carav1.ClaimStatus
	// Project that there is now, and the hash of its spec, labels and annotations.
	Project *carav1.Project
	Live    string
	// Owner is the source that owns the project, where that is another one and it exists.
	Owner *carav1.Source
	// Rivals are the present claims of other sources that exist and are not being deleted.
	Rivals []*carav1.Claim
	// Override and Tombstone that bear the project's name.
	Override  *carav1.Override
	Tombstone *carav1.Tombstone
	// Memory of earlier passes; nil if there is nothing to remember.
	Memory *Memory
}

// Memory is what earlier passes of this process remember of a claim.
type Memory struct {
	// Hash that was tried, against the project that Base stands for.
	Hash, Base string
	// Failures in a row, and when to try again.
	Failures int
	Retry    time.Time
	// State and Message of the last refusal.
	State, Message string
	// Applied are the times when Hash was written over something else, oldest first.
	Applied []time.Time
}

// Owner is how a project of a source names its owner: `source/NAME`.
func Owner(source string) string { return api.PrefixSource + source }

// Present reports whether the source declares the project now.
func (r *Row) Present() bool { return r.Claim.GetSpec().GetPresent() }

func (r *Row) owner() string { return r.Project.GetMetadata().GetOwner() }

// UID of the project that there is; empty without one.
func (r *Row) UID() string { return r.Project.GetMetadata().GetUid() }

// going reports whether the project is being deleted.
func (r *Row) going() bool { return api.GoingAway(r.Project) }

// base stands for everything about the project and the source that an attempt to apply may be refused for.
func (r *Row) base() string {
	return r.UID() + " " + r.owner() + " " + r.Live + " " + strconv.Itoa(int(r.Generation))
}

// expired reports whether the claim must not be brought (back) to life, and why.
func (r *Row) expired(now time.Time) (string, bool) {
	at := r.Claim.GetSpec().GetProject().GetSpec().GetExpireAt()
	if at != nil && !at.AsTime().After(now) {
		return "expireAt " + stamp(at) + " has passed; set a later one in the manifest, or remove it", true
	}
	t := r.Tombstone
	if t == nil || t.Reason != api.ReasonExpired || t.Owner != Owner(r.Claim.GetSpec().GetSource()) {
		return "", false
	}
	if born := r.Claim.GetMetadata().GetCreationTimestamp(); born != nil && born.AsTime().After(t.GetTime().AsTime()) {
		return "", false // the manifest was removed and declared again
	}
	if later(at, t.ExpireAt) {
		return "", false
	}
	return "expired on " + stamp(t.Time) + "; set a later expireAt in the manifest, or remove it", true
}

// later reports whether git's expiry lets a project live again that expired under the one before. None is for ever.
func later(at, before *timestamppb.Timestamp) bool {
	switch {
	case before == nil:
		return at != nil
	case at == nil:
		return true
	}
	return at.AsTime().After(before.AsTime())
}

// rival returns the present claim of one other source.
func (r *Row) rival(source string) *carav1.Claim {
	i := slices.IndexFunc(r.Rivals, func(c *carav1.Claim) bool { return c.Spec.Source == source })
	if i < 0 {
		return nil
	}
	return r.Rivals[i]
}

// Heir is the claim of another source that will take the project over once this one lets go, or nil. One that has
// expired takes nothing, nor one whose source may not have the project: to wait for it would keep the project for ever.
func (r *Row) Heir(now time.Time) *carav1.Claim {
	i := slices.IndexFunc(r.Rivals, func(c *carav1.Claim) bool {
		at := c.GetSpec().GetProject().GetSpec().GetExpireAt()
		return c.GetStatus().GetState() != api.ClaimNotAllowed && (at == nil || at.AsTime().After(now))
	})
	if i < 0 {
		return nil
	}
	return r.Rivals[i]
}

// letGo reports whether the other source that owns the project has released it for certain, and if not, why.
func (r *Row) letGo() (string, bool) {
	other := strings.TrimPrefix(r.owner(), api.PrefixSource)
	if c := r.rival(other); c != nil {
		return "it is declared there in " + api.Place(c.Spec.File, c.Spec.Line, 0), false
	}
	o := r.Owner
	switch {
	case o == nil, o.GetMetadata().GetDeletionTimestamp() != nil:
		return "", true
	case o.GetSpec().GetSuspend():
		return "it is suspended", false
	case o.GetStatus().GetSnapshot() == nil:
		return "it was not read yet", false
	case !Whole(o.Status.Snapshot):
		return "it has files that could not be read", false
	}
	return "", true
}

// Whole reports whether every file of a snapshot was read and understood.
func Whole(s *carav1.Snapshot) bool {
	return s.GetComplete() && s.ErrorCount == 0 && len(s.FileErrors) == 0
}
