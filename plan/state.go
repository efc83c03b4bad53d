package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
