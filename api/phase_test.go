package api_test

import (
	"errors"
	"testing"

	"github.com/caravanserai/cara/api"
)

// TestCheckMoveIsTheTable repeats the phase table and checks every pair of phases with every role: CheckMove allows exactly
// these moves.
func TestCheckMoveIsTheTable(t *testing.T) {
	type move struct {
		from, to api.Phase
		by       api.Role
	}
	allowed := map[move]bool{
		{"", "Pending", "server"}:                  true,
		{"Pending", "Scheduled", "scheduler"}:      true,
		{"Scheduled", "Running", "agent"}:          true,
		{"Scheduled", "Failed", "agent"}:           true,
		{"Running", "Failed", "agent"}:             true,
		{"Running", "Scheduled", "server"}:         true,
		{"Failed", "Pending", "server"}:            true,
		{"Scheduled", "Pending", "scheduler"}:      true,
		{"Running", "Pending", "scheduler"}:        true,
		{"Pending", "Terminating", "server"}:       true,
		{"Scheduled", "Terminating", "server"}:     true,
		{"Running", "Terminating", "server"}:       true,
		{"Failed", "Terminating", "server"}:        true,
		{"Terminating", "Terminated", "agent"}:     true,
		{"Terminating", "Terminated", "scheduler"}: true,
		{"Terminated", "", "gc"}:                   true,
		{"Pending", "", "server"}:                  true,
	}
	phases := append(api.Phases(), "", "Paused", "running")
	roles := []api.Role{api.RoleServer, api.RoleScheduler, api.RoleAgent, api.RoleGC, "", "admin"}
	for _, from := range phases {
		for _, to := range phases {
			for _, by := range roles {
				want := allowed[move{from, to, by}] || (from == to && api.KnownPhase(from))
				err := api.CheckMove(from, to, by)
				if (err == nil) != want {
					t.Errorf("%q to %q by %q: got %v, want allowed %v", from, to, by, err, want)
				}
				if err != nil && !errors.Is(err, api.ErrMove) {
					t.Errorf("%q to %q by %q: %v is no ErrMove", from, to, by, err)
				}
			}
		}
	}
	table := api.Moves()
	if moves := table[:]; len(moves) != len(allowed) {
		t.Errorf("the table has %d rows, want %d", len(moves), len(allowed))
	}
}

// TestEveryPhaseLeadsToTheEnd: from every phase there is a way to remove the record.
func TestEveryPhaseLeadsToTheEnd(t *testing.T) {
	for _, from := range api.Phases() {
		seen := map[api.Phase]bool{}
		var reach func(api.Phase)
		reach = func(p api.Phase) {
			if seen[p] {
				return
			}
			seen[p] = true
			for _, m := range api.Moves() {
				if m.From == p && p != "" {
					reach(m.To)
				}
			}
		}
		if reach(from); !seen[""] {
			t.Errorf("%s never ends", from)
		}
	}
}

func TestCheckMoveSaysWhose(t *testing.T) {
	err := api.CheckMove(api.PhaseScheduled, api.PhaseRunning, api.RoleServer)
	const want = "phase move not allowed: Scheduled to Running is for the [agent] to do, not for the server"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
