package step

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// unmounted returns the volumes of an image where the manifest mounts nothing. The engine creates a new volume for each of
// them with each container. It compares exact paths, so a mount at a parent directory does not help.
func unmounted(svc *carav1.Service, image engine.Image) []string {
	var out []string
	for _, v := range image.Volumes {
		at := func(mounted string) bool { return path.Clean(mounted) == path.Clean(v) }
		volume := slices.ContainsFunc(svc.GetVolumeMounts(), func(m *carav1.VolumeMount) bool { return at(m.GetMountPath()) })
		tmpfs := slices.ContainsFunc(svc.GetTmpfs(), func(t string) bool { p, _, _ := strings.Cut(t, ":"); return at(p) })
		if !volume && !tmpfs {
			out = append(out, v)
		}
	}
	return out
}

// maxUnmounted is the maximum number of volumes that a condition names.
const maxUnmounted = 10

// unmountedVolumes returns the condition of a project in which an image's volume loses its data whenever the container is
// replaced, or nil. Jobs do not count: they keep nothing for the next run.
func (s *report) unmountedVolumes() *carav1.Condition {
	var said []string
	for _, svc := range s.w.Spec.GetServices() {
		c := s.best(svc, true)
		if c == nil || ends(svc) {
			continue
		}
		for _, v := range unmounted(svc, s.h.Facts[c.ImageID]) {
			said = append(said, fmt.Sprintf("service %s: the image %s keeps data in %s, and the manifest mounts nothing there",
				svc.GetName(), s.w.ImageOf(svc), text.Clip(text.Line(v), 200)))
		}
	}
	if len(said) == 0 {
		return nil
	}
	if more := len(said) - maxUnmounted; more > 0 {
		said = append(said[:maxUnmounted], fmt.Sprintf("and %d more", more))
	}
	return api.NewCondition(api.CondUnmountedVolume, api.StatusTrue, api.ReasonImageVolume, strings.Join(said, "; ")+
		". This data is lost whenever the container is replaced, for example by an update. To keep it, declare a volume under "+
		"spec.volumes and mount it at that path with volumeMounts; if the data is not needed, mount a tmpfs there")
}
