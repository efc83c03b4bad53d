package kind

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestEventsAreInTheOrderOfTheirLastTime(t *testing.T) {
	at := func(reason string, first, last int64) *carav1.Event {
		return &carav1.Event{Reason: reason, FirstTime: timestamppb.New(time.Unix(first, 0)), LastTime: timestamppb.New(time.Unix(last, 0))}
	}
	got := ""
	for _, e := range ByLastTime([]*carav1.Event{at("again ", 1, 9), at("once ", 2, 2), at("twice ", 3, 5), at("also ", 4, 5)}) {
		got += e.Reason
	}
	if want := "once twice also again "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIngressOfANode(t *testing.T) {
	for want, st := range map[string]*carav1.NodeStatus{
		"n1:80": {},
		"n1:80 (entry: has the routes of all hosts)":                      {Info: &carav1.NodeInfo{Entry: true}},
		"n1:80 (serves public hosts)":                                     {PublicIngress: true},
		"n1:80 (entry: has the routes of all hosts; serves public hosts)": {Info: &carav1.NodeInfo{Entry: true}, PublicIngress: true},
	} {
		if st.Info == nil {
			st.Info = &carav1.NodeInfo{}
		}
		st.Info.IngressAddress = "n1:80"
		if got := ingressText(st); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestQuantity(t *testing.T) {
	for give, want := range map[string]string{
		"": "-", "0": "0", "1023": "1023", "2147483648": "2.0Gi", "128Mi": "128Mi", "16696893440": "15.6Gi", "much": "much", "5497558138880": "5.0Ti",
	} {
		if got := Quantity(give).Text; got != want {
			t.Errorf("quantity(%q) is %q, want %q", give, got, want)
		}
	}
}

func TestTelling(t *testing.T) {
	cond := func(typ, status, reason string) *carav1.Condition {
		return &carav1.Condition{Type: typ, Status: status, Reason: reason, Message: reason + "!"}
	}
	tests := []struct {
		name, phase     string
		conditions      []*carav1.Condition
		reason, message string
	}{
		{"nothing is wrong", api.PhaseRunning, []*carav1.Condition{cond("Ready", "True", "Ready"), cond("Phase", "True", "Running")}, "", ""},
		{"pending", api.PhasePending, []*carav1.Condition{cond("Phase", "True", "Created"), cond("Scheduled", "False", "Unschedulable")}, "Unschedulable", "Unschedulable!"},
		{"pulling", api.PhaseScheduled, []*carav1.Condition{cond("Scheduled", "True", "x"), cond("ImagesReady", "False", "Pulling"), cond("Ready", "False", "Waiting")}, "Pulling", "Pulling!"},
		{"unhealthy", api.PhaseRunning, []*carav1.Condition{cond("Ready", "False", "Unhealthy")}, "Unhealthy", "Unhealthy!"},
		{"failed", api.PhaseFailed, []*carav1.Condition{cond("Phase", "True", "Crashed"), cond("Ready", "False", "x")}, "Crashed", "Crashed!"},
		{"overridden too", api.PhaseRunning, []*carav1.Condition{cond("Ready", "False", "Unhealthy"), cond("Overridden", "True", "o")}, "Unhealthy,Overridden", "Unhealthy!; o!"},
		{"moving", api.PhaseRunning, []*carav1.Condition{cond("Moving", "True", "Copying")}, "Moving", "Copying!"},
		{"moved", api.PhaseRunning, []*carav1.Condition{cond("Moving", "False", "Moved")}, "", ""},
		{"only expiring", api.PhaseRunning, []*carav1.Condition{cond("Expiring", "True", "e")}, "Expiring", "e!"},
		{"a phase from the future", "Sleeping", nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &carav1.Project{Status: &carav1.ProjectStatus{Phase: tt.phase, Conditions: tt.conditions}}
			if reason, message := api.Telling(p); reason != tt.reason || message != tt.message {
				t.Errorf("got %q, %q, want %q, %q", reason, message, tt.reason, tt.message)
			}
		})
	}
}

// TestStateOfANode: an agent may be connected, and its engine may not answer.
func TestStateOfANode(t *testing.T) {
	dead := &carav1.Condition{Type: api.CondEngineReady, Status: api.StatusFalse, Reason: api.ReasonNoAnswer}
	for want, n := range map[string]*carav1.Node{
		"Ready":                {Status: &carav1.NodeStatus{State: api.NodeReady}},
		"Ready,EngineNotReady": {Status: &carav1.NodeStatus{State: api.NodeReady, Conditions: []*carav1.Condition{dead}}},
		"NotReady":             {Status: &carav1.NodeStatus{State: api.NodeNotReady, Conditions: []*carav1.Condition{dead}}},
		"Ready,Cordoned":       {Spec: &carav1.NodeSpec{Unschedulable: true}, Status: &carav1.NodeStatus{State: api.NodeReady}},
		"Ready,MemoryPressure": {Status: &carav1.NodeStatus{State: api.NodeReady, Conditions: []*carav1.Condition{{Type: api.CondMemoryPressure, Status: api.StatusTrue}}}},
		"Draining":             {Spec: &carav1.NodeSpec{Unschedulable: true}, Status: &carav1.NodeStatus{State: api.NodeDraining}},
	} {
		if got := StateCell(n).Text; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
