package step

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestUnmountedVolume: the image of db declares the volumes /data and /var/lib/db.
func TestUnmountedVolume(t *testing.T) {
	mount := func(paths ...string) func(*carav1.Service) {
		return func(s *carav1.Service) {
			for _, p := range paths {
				s.VolumeMounts = append(s.VolumeMounts, &carav1.VolumeMount{Name: "v", MountPath: p})
			}
		}
	}
	for name, c := range map[string]struct {
		service func(*carav1.Service)
		edit    func(*Want, *world)
		want    []string // in the condition's message; nil for no condition
	}{
		"nothing is mounted":   {want: []string{"service db: the image web keeps data in /data", "service db: the image web keeps data in /var/lib/db", "volumeMounts"}},
		"one is mounted":       {service: mount("/data/"), want: []string{"/var/lib/db"}},
		"both are mounted":     {service: mount("/data", "/var/lib/db")},
		"a mount further up":   {service: mount("/data", "/var/lib"), want: []string{"/var/lib/db"}},
		"a mount further down": {service: mount("/data", "/var/lib/db/x"), want: []string{"/var/lib/db"}},
		"a tmpfs": {service: func(s *carav1.Service) {
			mount("/var/lib/db")(s)
			s.Tmpfs = []string{"/data:size=1m"}
		}},
		"a job keeps nothing":    {service: func(s *carav1.Service) { s.RestartPolicy = api.RestartNever }},
		"the image is not known": {edit: func(_ *Want, e *world) { e.of("db").ImageID = "other" }},
		"it is being deleted":    {edit: func(w *Want, _ *world) { w.Remove = true }},
		"it has failed": {
			edit: func(_ *Want, e *world) { e.memory.Failure = &Failure{Service: "db", Reason: api.ReasonCrashLoop} },
			want: []string{"/data", "/var/lib/db"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &carav1.Service{Name: "db", Image: "web"}
			if c.service != nil {
				c.service(svc)
			}
			w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{svc}, Volumes: []*carav1.ProjectVolume{{Name: "v"}}}), newWorld()
			e.images["web"] = true
			for range 10 {
				e.do(w, Step(w, e.have(w), e.now))
			}
			e.of("db").ImageID = "i"
			if c.edit != nil {
				c.edit(w, e)
			}
			h := e.have(w)
			h.Facts = map[string]engine.Image{"i": {Volumes: []string{"/data", "/var/lib/db"}}}
			r := Report(w, h, Step(w, h, e.now), e.now)
			found := api.FindCondition(r.GetConditions(), api.CondUnmountedVolume)
			if (found != nil) != (c.want != nil) {
				t.Fatalf("condition %v, want %q", found, c.want)
			}
			for _, words := range c.want {
				if !strings.Contains(found.GetMessage(), words) {
					t.Errorf("the message lacks %q: %s", words, found.GetMessage())
				}
			}
			if len(c.want) == 1 && strings.Contains(found.GetMessage(), "/data,") {
				t.Errorf("a mounted volume is named: %s", found.GetMessage())
			}
		})
	}
}
