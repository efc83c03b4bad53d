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

// pin makes a service run the same image as before, even if its tag has moved: a move to another node, or a new container
// here, does not change the image. It applies while the service is unchanged since the digest was recorded, according to its
// hash. With pullPolicy Always it applies only to a project that is moving between nodes, and with Never it does not apply:
// the image on the node counts.
func (w *Want) pin(st *carav1.ProjectStatus) {
	for _, was := range st.GetServices() {
		svc := w.Service(was.GetName())
		if was.GetImageDigest() == "" || svc == nil || was.GetSpecHash() != w.Hashes[svc.GetName()] || strings.Contains(svc.GetImage(), "@") ||
			svc.GetPullPolicy() == api.PullNever || svc.GetPullPolicy() == api.PullAlways && st.GetMovedFrom() == "" {
			continue
		}
		w.Named[svc.GetName()] = svc.GetImage()
		svc.Image = was.GetImageDigest() // in the Want's own copy
	}
}

// PinAnew pins the images that run now, as the next assignment would, so that containers created until then use the same
// images.
func (w *Want) PinAnew(st *carav1.ProjectStatus) {
	w.Spec, w.Named = proto.CloneOf(w.Spec), maps.Clone(w.Named)
	w.pin(st)
}

// ImageOf returns the image of a service as written in the manifest.
func (w *Want) ImageOf(svc *carav1.Service) string {
	return cmp.Or(w.Named[svc.GetName()], svc.GetImage())
}

// Unpin returns a copy of w that uses the tag instead of each digest that can no longer be pulled, and a message about each.
// next is nil if there is no such digest. It removes their pulls.
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
