package step

import (
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestWaitForHealthy: app waits for db to be healthy, which runs from an image.
func TestWaitForHealthy(t *testing.T) {
	ofImage := &carav1.Healthcheck{Exec: &carav1.ExecCheck{Command: []string{"/check"}}}
	for name, c := range map[string]struct {
		manifest *carav1.Healthcheck
		images   map[string]engine.Image
		health   string
		want     string
	}{
		"the image's check has not ended":          {nil, map[string]engine.Image{"i": {Check: ofImage}}, "", "Wait db, Wait app"},
		"the image's check fails":                  {nil, map[string]engine.Image{"i": {Check: ofImage}}, api.HealthStarting, "Wait db, Wait app"},
		"the image's check passes":                 {nil, map[string]engine.Image{"i": {Check: ofImage}}, api.HealthHealthy, "StartContainer app"},
		"neither has one":                          {nil, map[string]engine.Image{"i": {}}, "", "Fail app"},
		"the image is not known yet":               {nil, nil, "", "Wait app"},
		"the manifest's check fails":               {&carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 1}}, nil, api.HealthStarting, "Wait db, Wait app"},
		"the manifest's comes before the image's":  {&carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 1}}, map[string]engine.Image{"i": {}}, api.HealthHealthy, "StartContainer app"},
		"the manifest turns the image's check off": {&carav1.Healthcheck{Disable: true}, map[string]engine.Image{"i": {Check: ofImage}}, "", "Wait app"},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{
				{Name: "db", Image: "web", Healthcheck: c.manifest},
				{Name: "app", Image: "web", DependsOn: []*carav1.Dependency{{Service: "db", Condition: api.DependsHealthy}}},
			}}), newWorld()
			e.images["web"] = true
			for range 20 { // until db runs and app is made
				if db, app := e.of("db"), e.of("app"); db != nil && app != nil && db.State == engine.StateRunning {
					break
				}
				h := e.have(w)
				h.Health = map[string]Health{}
				e.do(w, Step(w, h, e.now))
			}
			e.now = e.now.Add(time.Minute)
			e.of("db").ImageID = "i"
			e.of("app").State, e.of("app").StartedAt = engine.StateCreated, time.Time{}
			h := e.have(w)
			h.Facts, h.Health = c.images, map[string]Health{}
			if c.health != "" {
				h.Health[e.of("db").ID] = Health{State: c.health}
			}
			actions := Step(w, h, e.now)
			if got := kinds(actions); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			if f := actions[0].Failure; f != nil && (f.Reason != "NoHealthcheck" || !strings.Contains(f.Message, "add a healthcheck to db")) {
				t.Errorf("fails with %+v", f)
			}
		})
	}
}
