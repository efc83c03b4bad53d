package step

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestPin(t *testing.T) {
	const digest = "r.test/app@sha256:0123"
	tests := map[string]struct {
		service *carav1.Service
		was     func(*carav1.ServiceStatus)
		from    string
		want    string
	}{
		"the very image again":                         {service: &carav1.Service{Image: "r.test/app:1"}, want: digest},
		"nothing was recorded":                         {service: &carav1.Service{Image: "r.test/app:1"}, was: func(s *carav1.ServiceStatus) { s.ImageDigest = "" }, want: "r.test/app:1"},
		"the service has changed":                      {service: &carav1.Service{Image: "r.test/app:1"}, was: func(s *carav1.ServiceStatus) { s.SpecHash = "older" }, want: "r.test/app:1"},
		"another service's":                            {service: &carav1.Service{Image: "r.test/app:1"}, was: func(s *carav1.ServiceStatus) { s.Name = "b" }, want: "r.test/app:1"},
		"the manifest names a digest":                  {service: &carav1.Service{Image: "r.test/app@sha256:4567"}, want: "r.test/app@sha256:4567"},
		"what is on the node counts":                   {service: &carav1.Service{Image: "r.test/app:1", PullPolicy: api.PullNever}, want: "r.test/app:1"},
		"always means always":                          {service: &carav1.Service{Image: "r.test/app:1", PullPolicy: api.PullAlways}, want: "r.test/app:1"},
		"but a move changes nothing, whatever it says": {service: &carav1.Service{Image: "r.test/app:1", PullPolicy: api.PullAlways}, from: "n0", want: digest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.service.Name = "a"
			spec := &carav1.ProjectSpec{Services: []*carav1.Service{tt.service}}
			was := &carav1.ServiceStatus{Name: "a", Image: tt.service.Image, ImageDigest: digest, SpecHash: api.ServiceHash(spec, "a")}
			if tt.was != nil {
				tt.was(was)
			}
			p := &carav1.Project{
				Metadata: &carav1.ObjectMeta{Name: "p"}, Spec: spec,
				Status: &carav1.ProjectStatus{Services: []*carav1.ServiceStatus{was}, MovedFrom: tt.from},
			}
			w := NewWant(Node{}, &carav1.Assignment{Project: p}, true)
			svc := w.Service("a")
			if svc.GetImage() != tt.want || w.ImageOf(svc) != tt.service.Image || p.GetSpec().GetServices()[0].GetImage() != tt.service.Image {
				t.Errorf("runs from %s, called %s", svc.GetImage(), w.ImageOf(svc))
			}
			if w.Hashes["a"] != api.ServiceHash(spec, "a") {
				t.Error("the pin is in the hash")
			}
		})
	}
}
