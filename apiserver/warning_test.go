package apiserver

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestWarnings: warnings exist as long as each report has them, and each begins with one event.
func TestWarnings(t *testing.T) {
	for _, warning := range []string{api.CondSecretChanged, api.CondUnmountedVolume, api.CondBackupBlocked} {
		t.Run(warning, func(t *testing.T) {
			w := newTown(t)
			fillWith(t, w.house, web("shop"))
			w.running(t, "shop")
			report := w.reportOf(t, "shop", "")
			ready := &carav1.Condition{Type: api.CondReady, Status: api.StatusTrue, Reason: api.ReasonServicesUp}
			for _, conditions := range [][]*carav1.Condition{
				{ready, {Type: warning, Status: api.StatusTrue, Reason: "Told", Message: "look at this"}},
				{ready, {Type: warning, Status: api.StatusTrue, Reason: "Told", Message: "look at this, too"}},
				{ready},
			} {
				report.Conditions = conditions
				if _, err := w.n1.UpdateProjectStatus(t.Context(), report); err != nil {
					t.Fatal(err)
				}
				if stands := api.IsTrue(w.get(t, "shop").GetStatus().GetConditions(), warning); stands != (len(conditions) > 1) {
					t.Errorf("after a report of %d conditions: stands %t", len(conditions), stands)
				}
			}
			told := strings.Count(w.eventsOf(t, "shop"), "Told")
			if told != 1 {
				t.Errorf("%d events, want 1", told)
			}
		})
	}
}
