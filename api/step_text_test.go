package api_test

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestStepText(t *testing.T) {
	for _, tt := range []struct {
		step    *carav1.PlanStep
		blocked []string
		want    string
	}{
		{step: &carav1.PlanStep{Action: api.PlanCreate}, want: "would be created"},
		{
			step: &carav1.PlanStep{Action: api.PlanCreate, ClaimState: api.ClaimRefused, ClaimMessage: "the host is taken"},
			want: "would be created, and is not (Refused): the host is taken",
		},
		{step: &carav1.PlanStep{Action: api.PlanUpdate, Owner: "source/a"}, want: "would be configured"},
		{step: &carav1.PlanStep{Action: api.PlanAdopt}, want: "would be adopted, it belongs to nobody"},
		{step: &carav1.PlanStep{Action: api.PlanAdopt, Owner: "user/bob"}, want: "would be adopted, it belongs to user/bob"},
		{step: &carav1.PlanStep{Action: api.PlanHandOver, Owner: "source/b"}, want: "would be taken over from source/b"},
		{step: &carav1.PlanStep{Action: api.PlanDelete}, want: "would be pruned"},
		{step: keeps(api.ReasonDeleting, ""), want: "is being deleted: git would create it again"},
		{step: keeps(api.ClaimOverridden, "held down by user/ada: too loud; git would create it"), want: "is held down by user/ada: too loud; git would create it"},
		{step: keeps(api.ClaimPruneBlocked, "too many"), blocked: []string{"too many"}, want: "would be pruned, and is not: the prune is blocked"},
		{step: keeps(api.ClaimPruneBlocked, api.PruneOff), blocked: []string{api.PruneOff}, want: "is kept, it left the source: prune is off"},
		{step: keeps(api.ReasonLeftToOther, "it is left to source/b"), want: "is kept, it left the source: it is left to source/b"},
		{step: keeps(api.ReasonUnclaimed, "the source owns it and never declared it"), want: "is kept: the source owns it and never declared it"},
		{step: keeps(api.ClaimConflict, "project web is owned by source/b"), want: "stays as it is: project web is owned by source/b"},
	} {
		if got := api.StepText(tt.step, &carav1.SourcePlan{PruneBlocked: tt.blocked}); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.step, got, tt.want)
		}
	}
}

func keeps(reason, message string) *carav1.PlanStep {
	return &carav1.PlanStep{Action: api.PlanKeep, Reason: reason, Message: message}
}
