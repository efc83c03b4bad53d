// Package testlaw creates sources, claims and projects for tests of the rules of git.
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

// Revision is the revision of the sources in tests.
const Revision = "1a2b3c4d5e6f"

// Source returns a source whose files were all read at Revision and that was reconciled before.
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

// Project returns a project as in the cluster.
func Project(name, image, owner string, change ...func(*carav1.Project)) *carav1.Project {
	p := Manifest(name, image)
	p.Metadata.Uid, p.Metadata.Owner, p.Metadata.Generation = "u-"+name, owner, 1
	p.Status = &carav1.ProjectStatus{Phase: api.PhaseRunning, SpecHash: api.Hash(p.Spec)}
	for _, c := range change {
		c(p)
	}
	return p
}

// Manifest returns a project as in a file, with one service.
func Manifest(name, image string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}},
	}
}

// Terminating changes a project to one that is being deleted.
func Terminating(reason string) func(*carav1.Project) {
	return func(p *carav1.Project) {
		p.Metadata.DeletionTimestamp = timestamppb.New(Now)
		p.Status.Phase, p.Status.DeletionReason = api.PhaseTerminating, reason
	}
}

// Claim returns a new present claim of the source platform.
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

// Applied changes a claim to an applied one.
func Applied(c *carav1.Claim) {
	hash := api.ClaimHash(c.Spec.Project)
	c.Status = &carav1.ClaimStatus{
		State: api.ClaimApplied, AppliedHash: hash, AppliedRevision: c.Spec.Revision, AppliedTime: timestamppb.New(Now),
		ProjectUid: "u-" + c.Spec.Project.Metadata.Name,
	}
}

// Gone changes a claim to one whose manifest is no longer in the source.
func Gone(c *carav1.Claim) { c.Spec.Present = false }

// Held changes a claim to one whose manifest is not read, for the reason why.
func Held(why string) func(*carav1.Claim) { return func(c *carav1.Claim) { c.Spec.Held = why } }

// Expiring sets expireAt of a claim's project.
func Expiring(at time.Time) func(*carav1.Claim) {
	return func(c *carav1.Claim) { c.Spec.Project.Spec.ExpireAt = timestamppb.New(at) }
}

// From changes the source of a claim.
func From(source, uid, file string) func(*carav1.Claim) {
	return func(c *carav1.Claim) {
		c.Metadata.Name = source + "/" + c.Spec.Project.Metadata.Name
		c.Spec.Source, c.Spec.SourceUid, c.Spec.File = source, uid, file
	}
}

// Other returns another source whose files were all read.
func Other(name, uid string, change ...func(*carav1.Source)) *carav1.Source {
	s := proto.CloneOf(Source())
	s.Metadata.Name, s.Metadata.Uid = name, uid
	for _, f := range change {
		f(s)
	}
	return s
}

// FetchFailed changes a source to one that is unreachable.
func FetchFailed(s *carav1.Source) {
	s.Status.Conditions = []*carav1.Condition{{Type: api.CondFetchFailed, Status: api.StatusTrue, Reason: "Unreachable"}}
}
