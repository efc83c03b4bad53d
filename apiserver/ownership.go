package apiserver

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// sourceOf is the source that owns a project, or empty.
func sourceOf(p *carav1.Project) string {
	name, _ := api.SourceOf(p.GetMetadata().GetOwner())
	return name
}

// whence says where a project comes from: `source/platform, deploy/web.yaml at 1a2b3c4`.
func whence(owner string, origin *carav1.Origin) string {
	file, rev := origin.GetFile(), origin.GetRevision()
	if len(rev) > 7 && !strings.Contains(rev, ":") {
		rev = rev[:7]
	}
	switch {
	case file == "":
		return owner
	case rev == "":
		return owner + ", " + file
	default:
		return fmt.Sprintf("%s, %s at %s", owner, file, rev)
	}
}

// errSourceOwned refuses a person's change of what git decides.
func errSourceOwned(p *carav1.Project) error {
	return api.Owned("project %q belongs to %s: change it in git, or use --override --reason WHY",
		p.GetMetadata().GetName(), whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
}

// mayTake says whether a source may make a project its own. nil: it owns it already, or may adopt it.
func mayTake(p *carav1.Project, owner, adopt string, handOver []string) error {
	name, have := p.GetMetadata().GetName(), p.GetMetadata().GetOwner()
	switch {
	case have == owner, have != "" && slices.Contains(handOver, have):
		return nil
	case strings.HasPrefix(have, api.PrefixSource):
		return api.Owned("project %q belongs to %s: one of the two sources must let go of it",
			name, whence(have, p.GetMetadata().GetOrigin()))
	case plan.Adopts(have, adopt):
		return nil
	case have == "":
		return api.AdoptionRequired("project %q exists and nobody owns it, and the source's adopt is Never: caractrl adopt %s, or set spec.adopt to IfUnowned", name, name)
	default:
		return api.AdoptionRequired("project %q exists and belongs to %s: caractrl adopt %s, or set the source's spec.adopt to Always", name, have, name)
	}
}

// sameDeclaration says whether a project has the spec, labels and annotations that are declared. It looks at the spec
// itself: a hash that was stored beside another one must not hide the difference.
func sameDeclaration(p, declared *carav1.Project) bool {
	return api.Hash(p.GetSpec()) == api.Hash(declared.GetSpec()) &&
		sameMap(p.GetMetadata().GetLabels(), declared.GetMetadata().GetLabels()) &&
		sameMap(p.GetMetadata().GetAnnotations(), declared.GetMetadata().GetAnnotations())
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// redeclare gives a project the declared spec, labels and annotations; p is the transaction's own copy of old. It says
// whether anything is new.
func redeclare(t *state.Tx, old, p, declared *carav1.Project, what string) (bool, error) {
	if sameDeclaration(old, declared) {
		return false, nil
	}
	if api.GoingAway(old) {
		return false, errTerminating(old)
	}
	in := proto.CloneOf(declared.GetMetadata())
	p.Metadata.Labels, p.Metadata.Annotations = in.GetLabels(), in.GetAnnotations()
	if api.Hash(old.GetSpec()) == api.Hash(declared.GetSpec()) {
		return true, nil
	}
	return true, changeSpec(t, old, p, declared.GetSpec(), what)
}
