package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Input is the input of a plan for one source. It is not modified. If the source is being deleted, Rows has all its
// projects.
type Input struct {
	Source *carav1.Source
	// Rows are the projects that may need a step.
	Rows []Row
	// Settled counts the projects that are left out of Rows because they are known to be in sync.
	Settled int
	// Check makes the server check every project, also those in sync, because the source's spec and with it its permissions
	// have changed.
	Check bool
	Now   time.Time
}

// Row is everything known about one project that the source claims, claimed or owns. Absent parts are nil.
type Row struct {
	Name string
	// Claim is what this source declares; nil if the source owns the project but declares nothing about it.
	Claim *carav1.Claim
	// Want is the claim's hash, in the same version as Live.
	Want string
	// Generation is that of the source's spec.
	Generation int32
	// Status is the claim's status, or a newer one that was written since.
	Status *carav1.ClaimStatus
	// Project is the existing project. Live is the hash of its spec, labels and annotations.
	Project *carav1.Project
	Live    string
	// Owner is the source that owns the project, if that is an existing other source.
	Owner *carav1.Source
	// Rivals are the present claims of other sources that exist and are not being deleted.
	Rivals []*carav1.Claim
	// Override and Tombstone are those with the project's name.
	Override  *carav1.Override
	Tombstone *carav1.Tombstone
	// Memory is that of earlier reconciliations; nil if there is none.
	Memory *Memory
}

// Memory holds what this process remembers of earlier reconciliations of a claim.
type Memory struct {
	// Hash is the claim hash of the last attempt, and Base the state of the project then.
	Hash, Base string
	// Failures is the number of consecutive failures, and Retry the time of the next attempt.
	Failures int
	Retry    time.Time
	// State and Message are those of the last rejection.
	State, Message string
	// Applied are the times when Hash replaced another state, oldest first.
	Applied []time.Time
}

// Owner returns a source's name as the owner of projects: `source/NAME`.
func Owner(source string) string { return api.PrefixSource + source }

// Present reports whether the source currently declares the project.
func (r *Row) Present() bool { return r.Claim.GetSpec().GetPresent() }

func (r *Row) owner() string { return r.Project.GetMetadata().GetOwner() }

// UID returns the UID of the existing project, or "".
func (r *Row) UID() string { return r.Project.GetMetadata().GetUid() }

// going reports whether the project is being deleted.
func (r *Row) going() bool { return api.GoingAway(r.Project) }

// base identifies the state of project and source on which the result of an apply depends.
func (r *Row) base() string {
	return r.UID() + " " + r.owner() + " " + r.Live + " " + strconv.Itoa(int(r.Generation))
}

// expired reports whether the claim must not create or restart the project, and why.
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

// later reports whether a new expiry lets an expired project run again. nil means no expiry.
func later(at, before *timestamppb.Timestamp) bool {
	switch {
	case before == nil:
		return at != nil
	case at == nil:
		return true
	}
	return at.AsTime().After(before.AsTime())
}

// rival returns the present claim of another source, or nil.
func (r *Row) rival(source string) *carav1.Claim {
	i := slices.IndexFunc(r.Rivals, func(c *carav1.Claim) bool { return c.Spec.Source == source })
	if i < 0 {
		return nil
	}
	return r.Rivals[i]
}

// Heir returns the claim of another source that will take the project over when this source releases it, or nil. Claims
// that have expired or whose source may not have the project do not count: waiting for them would keep the project forever.
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

// letGo reports whether the other source that owns the project has certainly released it, and if not, why.
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

// Whole reports whether every file of a snapshot was read without errors.
func Whole(s *carav1.Snapshot) bool {
	return s.GetComplete() && s.ErrorCount == 0 && len(s.FileErrors) == 0
}

// State provides the existing objects: the reconciler's index of the watch, or the server's view. Methods return nil if one
// does not exist.
type State interface {
	Source(name string) *carav1.Source
	// Claims returns the claims on a project by source.
	Claims(project string) map[string]*carav1.Claim
	// Project returns a project and its claim hash.
	Project(name string) (*carav1.Project, string)
	Override(project string) *carav1.Override
	Tombstone(project string) *carav1.Tombstone
}

// NewRow collects what exists about one project that a source claims, claimed or owns.
func NewRow(s State, source, project string) Row {
	claims := s.Claims(project)
	claim := claims[source]
	r := Row{
		Name: project, Generation: s.Source(source).GetMetadata().GetGeneration(),
		Claim: claim, Want: claim.GetSpec().GetHash(), Status: claim.GetStatus(), Override: s.Override(project),
	}
	if r.Project, r.Live = s.Project(project); r.Project != nil {
		if claim != nil && r.Want != r.Live && hashVersion(r.Want) != hashVersion(r.Live) {
			r.Want = api.ClaimHash(claim.Spec.Project) // another version of Cara hashed the claim
		}
		if other, ok := api.SourceOf(r.owner()); ok && other != source {
			r.Owner = s.Source(other)
		}
	} else {
		r.Tombstone = s.Tombstone(project)
	}
	if len(claims) > 1 || claim == nil {
		r.Rivals = rivals(s, source, claims)
	}
	return r
}

// rivals returns the claims of other sources that exist with the same UID and are not being deleted.
func rivals(s State, source string, claims map[string]*carav1.Claim) []*carav1.Claim {
	var found []*carav1.Claim
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		c, other := claims[name], s.Source(name)
		if name == source || !c.GetSpec().GetPresent() || other == nil || other.Metadata.GetDeletionTimestamp() != nil || other.Metadata.Uid != c.Spec.SourceUid {
			continue
		}
		found = append(found, c)
	}
	return found
}

// hashVersion returns the version prefix of a hash.
func hashVersion(hash string) string {
	v, _, _ := strings.Cut(hash, ":")
	return v
}
