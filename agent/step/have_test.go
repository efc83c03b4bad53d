package step

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

func TestGrace(t *testing.T) {
	have := &Have{Containers: []engine.Container{{ID: "none", Grace: new(time.Duration(0))}, {ID: "some", Grace: new(3 * time.Second)}, {ID: "old"}}}
	for id, want := range map[string]time.Duration{
		"none": 0, "some": 3 * time.Second, "old": api.DefaultStopGracePeriod, "gone": api.DefaultStopGracePeriod,
	} {
		if got := have.Grace(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}
