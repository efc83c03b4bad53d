package state

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A snapshot that does not fit into one transaction is stored in three steps. First, its claims are written as staged
// claims with a generation, in several transactions; readers do not see them. Then one transaction writes the source's head
// with that generation. From then on every view has the staged claims instead of the stored ones. Finally the staged claims
// are folded: written as claims and removed. If a server is killed before the second step, the older snapshot stays active,
// and the next server removes the staged claims.

// StagedName returns the name of a staged claim.
func StagedName(source, generation, project string) string {
	return source + "/" + generation + "/" + project
}

// stagedOf returns the active staged claim for a claim, or nil.
func (v *View) stagedOf(claim string) *carav1.Claim {
	source, project, _ := strings.Cut(claim, "/")
	src, _ := Get[*carav1.Source](v, source)
	staged, _ := Get[*carav1.StagedClaim](v, StagedName(source, src.GetStatus().GetSnapshot().GetGeneration(), project))
	return staged.GetClaim()
}

// unstaged reports whether the view has no staged claims, which is the usual case.
func (v *View) unstaged() bool { return v.tables[KindStaged].sorted.Len() == 0 }

// StagedSources returns the names of the sources that have staged claims, sorted.
func (v *View) StagedSources() []string {
	var sources []string
	v.Ascend(KindStaged, "", "", func(e *Entry) bool {
		source, _, _ := strings.Cut(e.Name, "/")
		if len(sources) == 0 || sources[len(sources)-1] != source {
			sources = append(sources, source)
		}
		return true
	})
	return sources
}

// setStaged applies changes to a view that has staged claims. It returns them with the changes that new heads cause.
func (v *View) setStaged(changes []Change, rev int64) []Change {
	all := make([]Change, 0, len(changes))
	var claims []Change
	var heads []string
	for _, ch := range changes {
		if ch.Kind == api.KindClaim {
			claims = append(claims, ch)
			continue
		}
		v.set(&ch, rev)
		all = append(all, ch)
		if ch.Kind == api.KindSource && generation(ch.Old) != generation(ch.New) {
			heads = append(heads, ch.Name)
		}
	}
	for _, source := range heads {
		all = append(all, v.enforce(source, rev)...)
	}
	for _, ch := range claims {
		stored := rev
		if ch.New == nil {
			stored = 0
		}
		if staged := v.stagedOf(ch.Name); staged != nil {
			ch.New = inForce(As[*carav1.Claim](ch.New), staged, rev)
		}
		v.set(&ch, stored)
		all = append(all, ch)
	}
	return all
}

// enforce replaces the stored claims of a source with the staged claims of its head. An entry keeps the revision of the
// stored claim, because transactions compare that.
func (v *View) enforce(source string, rev int64) []Change {
	src, _ := Get[*carav1.Source](v, source)
	prefix := StagedName(source, src.GetStatus().GetSnapshot().GetGeneration(), "")
	var changes []Change
	v.Ascend(KindStaged, prefix, "", func(e *Entry) bool {
		ch := Change{Kind: api.KindClaim, Name: source + "/" + strings.TrimPrefix(e.Name, prefix)}
		stored, at := (*carav1.Claim)(nil), int64(0)
		if have := v.Entry(api.KindClaim, ch.Name); have != nil {
			stored, at = As[*carav1.Claim](have.Message()), have.Rev
		}
		ch.New = inForce(stored, As[*carav1.StagedClaim](e.Message()).GetClaim(), rev)
		v.set(&ch, at)
		changes = append(changes, ch)
		return true
	})
	return changes
}

// inForce returns a stored claim, or nil, with the spec of the staged one. It shares what it does not change with both.
func inForce(stored, staged *carav1.Claim, rev int64) *carav1.Claim {
	meta, status := staged.GetMetadata(), staged.GetStatus()
	if stored != nil {
		meta, status = stored.GetMetadata(), stored.GetStatus()
	}
	c := &carav1.Claim{Metadata: proto.CloneOf(meta), Spec: staged.GetSpec(), Status: status}
	c.Metadata.ResourceVersion = api.FormatRevision(rev)
	return c
}

func generation(source proto.Message) string {
	return As[*carav1.Source](source).GetStatus().GetSnapshot().GetGeneration()
}
