// Package testlaw makes the sources, claims and projects that tests of the law of git are written with.
package testlaw

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Now is the time of the tests.
var Now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a time that never changes

// Revision is what the sources of the tests were read at.
const Revision = "1a2b3c4d5e6f"

// Source returns a source that was read whole at revision and had a pass before.
func Source(change ...func(*carav1.Source)) *carav1.Source {
	s := &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource,
		Metadata: &carav1.ObjectMeta{Name: "platform", Uid: "s1", Generation: 1},
		Spec:     &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
		Status: &carav1.SourceStatus{
			Snapshot:          &carav1.Snapshot{Revision: Revision, Sequence: 2, Complete: true},
			AttemptedRevision: Revision, AppliedRevision: Revision, ObservedGeneration: 1,
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// Project returns a project as it stands in the cluster.
func Project(name, image, owner string, change ...func(*carav1.Project)) *carav1.Project {
	p := Manifest(name, image)
	p.Metadata.Uid, p.Metadata.Owner, p.Metadata.Generation = "u-"+name, owner, 1
	p.Status = &carav1.ProjectStatus{Phase: api.PhaseRunning, SpecHash: api.Hash(p.Spec)}
	for _, c := range change {
		c(p)
	}
	return p
}

// Manifest returns a project as a file declares it, with one service.
func Manifest(name, image string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}},
	}
}

// Terminating makes a project one that is being removed.
func Terminating(reason string) func(*carav1.Project) {
	return func(p *carav1.Project) {
		p.Metadata.DeletionTimestamp = timestamppb.New(Now)
		p.Status.Phase, p.Status.DeletionReason = api.PhaseTerminating, reason
	}
}

// Claim returns a present claim of platform that was never looked at.
func Claim(name, image string, change ...func(*carav1.Claim)) *carav1.Claim {
	c := &carav1.Claim{
		Metadata: &carav1.ObjectMeta{Name: "platform/" + name},
		Spec: &carav1.ClaimSpec{
			Source: "platform", SourceUid: "s1", Project: Manifest(name, image), File: name + ".yaml", Line: 1, Revision: Revision, Present: true,
		},
	}
	for _, f := range change {
		f(c)
	}
	c.Spec.Hash = api.ClaimHash(c.Spec.Project)
	return c
}

// Applied makes a claim one that was applied as it is.
func Applied(c *carav1.Claim) {
	hash := api.ClaimHash(c.Spec.Project)
	c.Status = &carav1.ClaimStatus{
		State: api.ClaimApplied, AppliedHash: hash, AppliedRevision: c.Spec.Revision, AppliedTime: timestamppb.New(Now),
		ProjectUid: "u-" + c.Spec.Project.Metadata.Name,
	}
}

// Gone makes a claim one whose manifest left the source.
func Gone(c *carav1.Claim) { c.Spec.Present = false }

// Held makes a claim one that is not read, and says why.
func Held(why string) func(*carav1.Claim) { return func(c *carav1.Claim) { c.Spec.Held = why } }

// Expiring gives a claim's project an expireAt.
func Expiring(at time.Time) func(*carav1.Claim) {
	return func(c *carav1.Claim) { c.Spec.Project.Spec.ExpireAt = timestamppb.New(at) }
}

// From makes a claim one of another source.
func From(source, uid, file string) func(*carav1.Claim) {
	return func(c *carav1.Claim) {
		c.Metadata.Name = source + "/" + c.Spec.Project.Metadata.Name
		c.Spec.Source, c.Spec.SourceUid, c.Spec.File = source, uid, file
	}
}

// Other returns another source that was read whole.
func Other(name, uid string, change ...func(*carav1.Source)) *carav1.Source {
	s := proto.CloneOf(Source())
	s.Metadata.Name, s.Metadata.Uid = name, uid
	for _, f := range change {
		f(s)
	}
	return s
}

// FetchFailed makes a source one that cannot be reached.
func FetchFailed(s *carav1.Source) {
	s.Status.Conditions = []*carav1.Condition{{Type: api.CondFetchFailed, Status: api.StatusTrue, Reason: "Unreachable"}}
}
