package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// State answers what there is: the reconciler's index of the watch, and the server's own view. What does not exist is nil.
type State interface {
	Source(name string) *carav1.Source
	// Claims are the claims on a project, by their source.
	Claims(project string) map[string]*carav1.Claim
	// Project returns a project and its claim hash.
	Project(name string) (*carav1.Project, string)
	Override(project string) *carav1.Override
	Tombstone(project string) *carav1.Tombstone
}

// NewRow joins what there is about one project that a source claims, claimed or owns.
func NewRow(s State, source, project string) Row {
	claims := s.Claims(project)
	claim := claims[source]
	r := Row{
		Name: project, Generation: s.Source(source).GetMetadata().GetGeneration(),
		Claim: claim, Want: claim.GetSpec().GetHash(), Status: claim.GetStatus(), Override: s.Override(project),
	}
	if r.Project, r.Live = s.Project(project); r.Project != nil {
		if claim != nil && hashVersion(r.Want) != hashVersion(r.Live) {
			r.Want = api.ClaimHash(claim.Spec.Project) // the claim was hashed by another version of Cara
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

// rivals are the claims of others that count: of sources that exist, are the very ones, and are not being deleted.
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

// hashVersion is the part of a hash that says how it was made.
func hashVersion(hash string) string {
	v, _, _ := strings.Cut(hash, ":")
	return v
}
