package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// pin makes a service run from the very image that it ran from before, though its tag may lead elsewhere by now: what
// is moved to another node, or made anew here, is not changed by that. It holds while the service is as it was when the
// digest was taken (its hash says so). With pullPolicy Always it holds for a project on its way from one node to
// another only, and with Never not at all: what is on the node counts.
func (w *Want) pin(st *carav1.ProjectStatus) {
	for _, was := range st.GetServices() {
		svc := w.service(was.GetName())
		if was.GetImageDigest() == "" || svc == nil || was.GetSpecHash() != w.Hashes[svc.GetName()] || strings.Contains(svc.GetImage(), "@") ||
			svc.GetPullPolicy() == api.PullNever || svc.GetPullPolicy() == api.PullAlways && st.GetMovedFrom() == "" {
			continue
		}
		w.Named[svc.GetName()] = svc.GetImage()
		svc.Image = was.GetImageDigest() // of the want's own copy
	}
}

// pinAnew pins what runs now, as the next assignment would: what is made anew until then is the same.
func (w *Want) pinAnew(st *carav1.ProjectStatus) {
	w.Spec, w.Named = proto.CloneOf(w.Spec), maps.Clone(w.Named)
	w.pin(st)
}

// named is the image as the manifest has it.
func (w *Want) named(svc *carav1.Service) string {
	return cmp.Or(w.Named[svc.GetName()], svc.GetImage())
}

// unpin goes back to the tag of each service whose digest the registry does not give out any more, and says so.
func (a *Agent) unpin(ctx context.Context, t *task, want *Want, w *workspace) (unpinned bool) {
	next := *want
	for name, ref := range want.Named {
		digest := want.service(name).GetImage()
		pull := w.memory.Pulls[digest]
		if !pull.Final {
			continue
		}
		if !unpinned {
			next.Spec, next.Named, unpinned = proto.CloneOf(want.Spec), maps.Clone(want.Named), true
		}
		next.service(name).Image = ref
		delete(next.Named, name)
		delete(w.memory.Pulls, digest)
		next.Moved = fmt.Sprintf("service %s ran from %s before, which the registry does not give out any more: it runs from what %s leads to now (%s)",
			name, digest, ref, pull.Err)
		a.log.Warn("the digest of an image is gone", "project", want.Project, "service", name, "digest", digest, "image", ref)
		a.tellOf(ctx, &carav1.ObjectRef{Kind: api.KindProject, Name: want.Project, Uid: want.UID}, api.EventWarning, api.ReasonImageDigestGone, next.Moved)
	}
	if !unpinned {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.want == want {
		t.want = &next
	}
	return true
}
