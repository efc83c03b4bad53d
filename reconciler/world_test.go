package reconciler

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const revision = "1a2b3c4d5e6f"

// source returns a source that was read whole at revision and had a pass before.
func source(change ...func(*carav1.Source)) *carav1.Source {
	s := &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource,
		Metadata: &carav1.ObjectMeta{Name: "platform", Uid: "s1", Generation: 1},
		Spec:     &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
		Status: &carav1.SourceStatus{
			Snapshot:          &carav1.Snapshot{Revision: revision, Sequence: 2, Complete: true},
			AttemptedRevision: revision, AppliedRevision: revision, ObservedGeneration: 1,
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// project returns a project as it stands in the cluster.
func project(name, image, owner string, change ...func(*carav1.Project)) *carav1.Project {
	p := manifest(name, image)
	p.Metadata.Uid, p.Metadata.Owner, p.Metadata.Generation = "u-"+name, owner, 1
	p.Status = &carav1.ProjectStatus{Phase: api.PhaseRunning, SpecHash: api.Hash(p.Spec)}
	for _, c := range change {
		c(p)
	}
	return p
}

func manifest(name, image string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}},
	}
}

func terminating(reason string) func(*carav1.Project) {
	return func(p *carav1.Project) {
		p.Metadata.DeletionTimestamp = timestamppb.New(now)
		p.Status.Phase, p.Status.DeletionReason = api.PhaseTerminating, reason
	}
}

// claim returns a present claim of platform that was never looked at.
func claim(name, image string, change ...func(*carav1.Claim)) *carav1.Claim {
	c := &carav1.Claim{
		Metadata: &carav1.ObjectMeta{Name: "platform/" + name},
		Spec: &carav1.ClaimSpec{
			Source: "platform", SourceUid: "s1", Project: manifest(name, image), File: name + ".yaml", Line: 1, Revision: revision, Present: true,
		},
	}
	for _, f := range change {
		f(c)
	}
	c.Spec.Hash = api.ClaimHash(c.Spec.Project)
	return c
}

// applied makes a claim one that was applied as it is.
func applied(c *carav1.Claim) {
	hash := api.ClaimHash(c.Spec.Project)
	c.Status = &carav1.ClaimStatus{
		State: api.ClaimApplied, AppliedHash: hash, AppliedRevision: c.Spec.Revision, AppliedTime: timestamppb.New(now),
		ProjectUid: "u-" + c.Spec.Project.Metadata.Name,
	}
}

func gone(c *carav1.Claim) { c.Spec.Present = false }

func held(why string) func(*carav1.Claim) { return func(c *carav1.Claim) { c.Spec.Held = why } }

func expiring(at time.Time) func(*carav1.Claim) {
	return func(c *carav1.Claim) { c.Spec.Project.Spec.ExpireAt = timestamppb.New(at) }
}

func of(source, uid, file string) func(*carav1.Claim) {
	return func(c *carav1.Claim) {
		c.Metadata.Name = source + "/" + c.Spec.Project.Metadata.Name
		c.Spec.Source, c.Spec.SourceUid, c.Spec.File = source, uid, file
	}
}

// row joins what there is about one project as the index does.
func row(c *carav1.Claim, p *carav1.Project, change ...func(*Row)) Row {
	r := Row{Claim: c, Project: p}
	if c != nil {
		r.Name, r.Want, r.Status = c.Spec.Project.Metadata.Name, c.Spec.Hash, c.Status
	}
	if p != nil {
		r.Name, r.Live = p.Metadata.Name, api.ClaimHash(p)
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func override(scope string, change ...func(*carav1.Override)) func(*Row) {
	return func(r *Row) {
		r.Override = &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: r.Name}, Scope: scope, Actor: "user/ada", Reason: "incident 7", Since: timestamppb.New(now),
		}
		for _, f := range change {
			f(r.Override)
		}
	}
}

func rival(c *carav1.Claim) func(*Row) { return func(r *Row) { r.Rivals = append(r.Rivals, c) } }

func ownedBy(s *carav1.Source) func(*Row) { return func(r *Row) { r.Owner = s } }

func tombstone(reason string, expireAt *timestamppb.Timestamp) func(*Row) {
	return func(r *Row) {
		r.Tombstone = &carav1.Tombstone{
			Metadata: &carav1.ObjectMeta{Name: r.Name}, Reason: reason, Owner: "source/platform", ExpireAt: expireAt,
			Time: timestamppb.New(now.Add(-time.Minute)),
		}
	}
}

// other returns another source that was read whole.
func other(name, uid string, change ...func(*carav1.Source)) *carav1.Source {
	s := proto.CloneOf(source())
	s.Metadata.Name, s.Metadata.Uid = name, uid
	for _, f := range change {
		f(s)
	}
	return s
}
