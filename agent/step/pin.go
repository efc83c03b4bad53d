package step

import (
	"cmp"
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
		svc := w.Service(was.GetName())
		if was.GetImageDigest() == "" || svc == nil || was.GetSpecHash() != w.Hashes[svc.GetName()] || strings.Contains(svc.GetImage(), "@") ||
			svc.GetPullPolicy() == api.PullNever || svc.GetPullPolicy() == api.PullAlways && st.GetMovedFrom() == "" {
			continue
		}
		w.Named[svc.GetName()] = svc.GetImage()
		svc.Image = was.GetImageDigest() // of the want's own copy
	}
}

// PinAnew pins what runs now, as the next assignment would: what is made anew until then is the same.
func (w *Want) PinAnew(st *carav1.ProjectStatus) {
	w.Spec, w.Named = proto.CloneOf(w.Spec), maps.Clone(w.Named)
	w.pin(st)
}

// ImageOf is the image of a service as the manifest has it.
func (w *Want) ImageOf(svc *carav1.Service) string {
	return cmp.Or(w.Named[svc.GetName()], svc.GetImage())
}

// Unpin returns w with the tag in the place of each digest that cannot be pulled any more, and a message about each. next is nil if there is
// no such digest. Their pulls are forgotten.
func (w *Want) Unpin(pulls map[string]Pull) (next *Want, said []string) {
	for service, ref := range w.Named {
		digest := w.Service(service).GetImage()
		pull := pulls[digest]
		if !pull.Final {
			continue
		}
		if next == nil {
			next = new(Want)
			*next = *w
			next.Spec, next.Named = proto.CloneOf(w.Spec), maps.Clone(w.Named)
		}
		next.Service(service).Image = ref
		delete(next.Named, service)
		delete(pulls, digest)
		next.Moved = fmt.Sprintf("service %s ran from %s before, which the registry does not give out any more: it runs from what %s leads to now (%s)",
			service, digest, ref, pull.Err)
		said = append(said, next.Moved)
	}
	return next, said
}
