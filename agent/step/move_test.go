package step

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// chain has a job that ends, a database, and a web server that depends on both.
func chain() *carav1.ProjectSpec {
	spec := dataSpec()
	spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db"}, {Service: "job", Condition: api.DependsCompleted}}
	spec.Services = append(spec.Services, &carav1.Service{Name: "job", Image: "web", RestartPolicy: api.RestartOnFailure},
		&carav1.Service{Name: "once", Image: "web", RestartPolicy: api.RestartNever})
	return spec
}

// move is the assignment's move m1 in a step, after a number of attempts.
func move(step string, attempts int32) *carav1.Move {
	return &carav1.Move{Id: "m1", From: "n1", To: "n2", Step: step, Attempts: attempts}
}

// chained is the project of chain, up, with its job completed.
func chained(t *testing.T) (*Want, *world) {
	t.Helper()
	w, e := wantOf(chain()), newWorld()
	w.HaveSecrets = true
	e.images["web"] = true
	for range 100 {
		e.do(w, Step(w, e.have(w), e.now))
		if job := e.of("job"); job != nil && job.State == engine.StateRunning {
			job.State, job.ExitCode, job.FinishedAt = engine.StateExited, 0, e.now
		}
		if len(Step(w, e.have(w), e.now)) == 0 {
			return w, e
		}
	}
	t.Fatalf("not up: %v", Step(w, e.have(w), e.now))
	return nil, nil
}

func TestStepWhileMoving(t *testing.T) {
	verified := Record{UID: "uid", Epoch: 1, Verified: &Verified{ID: "m1", Attempts: 1}}
	for name, c := range map[string]struct {
		move    *carav1.Move
		disk    bool // the assignment comes from disk
		moving  Moving
		record  *Record // in addition to what it was
		stopped bool    // nothing runs before
		want    string
	}{
		"no move":                            {},
		"requested, which is not ours":       {move: move(api.MoveRequested, 0)},
		"copying":                            {move: move(api.MoveCopying, 0)},
		"switching: dependents first":        {move: move(api.MoveSwitching, 0), want: "StopContainer once, StopContainer web"},
		"switching, and all is stopped":      {move: move(api.MoveSwitching, 0), stopped: true, want: "Wait"},
		"switching, and verified":            {move: move(api.MoveSwitching, 1), moving: Moving{Result: api.MoveVerified}, stopped: true, want: "Wait"},
		"switching from disk stops nothing":  {move: move(api.MoveSwitching, 0), disk: true},
		"switching from disk, but verified":  {move: move(api.MoveSwitching, 1), disk: true, record: &verified, stopped: true, want: "Wait"},
		"copying from disk, but verified":    {move: move(api.MoveCopying, 0), disk: true, record: &verified, stopped: true, want: "Wait"},
		"no move from disk, but verified":    {disk: true, record: &verified, stopped: true, want: "Wait"},
		"verified, and started by hand":      {move: move(api.MoveSwitching, 1), record: &verified, want: "StopContainer once, StopContainer web"},
		"an older assignment after verified": {move: move(api.MoveCopying, 1), record: &verified, stopped: true, want: "Wait"},
		"interrupted here":                   {move: move(api.MoveSwitching, 0), moving: Moving{Result: api.MoveInterrupted}, stopped: true, want: continues},
		"failed here":                        {move: move(api.MoveSwitching, 0), moving: Moving{Result: api.MoveFailed}, stopped: true, want: continues},
		"interrupted by the server":          {move: move(api.MoveCopying, 2), record: &verified, stopped: true, want: continues},
		"canceled":                           {stopped: true, want: continues},
		"canceled after verified":            {record: &verified, stopped: true, want: continues},
		"a newer move":                       {move: &carav1.Move{Id: "m2", From: "n1", To: "n3", Step: api.MoveCopying}, record: &verified, stopped: true, want: continues},
		"the server restarted from disk":     {disk: true, stopped: true, want: continues},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := chained(t)
			if c.stopped {
				stop := *w
				stop.Move = move(api.MoveSwitching, 0)
				for range 5 {
					e.do(&stop, Step(&stop, e.have(&stop), e.now))
				}
			}
			next := *w
			next.setMove(&carav1.Project{Status: &carav1.ProjectStatus{Move: c.move}})
			next.HaveSecrets = !c.disk
			e.moving = c.moving
			if c.record != nil {
				e.record.Verified = c.record.Verified
			}
			h := e.have(&next)
			if got := kinds(Step(&next, h, e.now)); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
		})
	}
}

// continues is what follows a stop: the containers start again, except for the job, which had ended before.
const continues = "RestartContainer db, RestartContainer web, RestartContainer once"

// TestStoppedForMoveIsNoExit: a container that was stopped for a move counts as neither failed nor completed nor restarted.
func TestStoppedForMoveIsNoExit(t *testing.T) {
	w, e := chained(t)
	job := e.of("job").ID
	switching := *w
	switching.Move = move(api.MoveSwitching, 0)
	for range 5 {
		e.do(&switching, Step(&switching, e.have(&switching), e.now))
	}
	for i := range e.containers {
		e.containers[i].ExitCode = 0 // they end well when they are asked to
		if up(e.containers[i]) {
			t.Fatalf("%s runs", e.containers[i].Name)
		}
	}
	if e.record = e.record.Next(&switching, e.have(&switching), nil, e.now); len(e.record.Completed) != 1 {
		t.Errorf("completed: %v, want the job alone", e.record.Completed)
	}
	var disk Record
	data, err := json.Marshal(e.record)
	if err != nil || json.Unmarshal(data, &disk) != nil || !disk.Same(e.record) {
		t.Fatalf("the record changes on disk: %s", data)
	}
	e.record = disk
	e.forget() // a new agent
	if !MoveStopped(&switching, e.have(&switching)) {
		t.Error("it does not count as stopped")
	}
	if len(e.record.StoppedForMove) != 3 || !e.record.StoppedForMove[job].IsZero() {
		t.Errorf("stopped for the move: %v", e.record.StoppedForMove)
	}
	if r := Report(&switching, e.have(&switching), nil, e.now); r.Phase != "" || api.FindCondition(r.Conditions, api.CondReady).GetReason() != api.ReasonMoving {
		t.Errorf("report %v", r)
	}
	before := e.now
	e.do(w, Step(w, e.have(w), e.now))
	for _, name := range []string{"db", "web", "once"} {
		if c := e.of(name); c == nil || c.State != engine.StateRunning || e.memory.Restarts[name].Total != 0 {
			t.Errorf("%s: %+v, %+v", name, c, e.memory.Restarts[name])
		}
	}
	if got := kinds(Step(w, e.have(w), e.now)); got != "" || e.now.Sub(before) > time.Second {
		t.Errorf("afterwards it does %q, %v later", got, e.now.Sub(before))
	}
	if e.record = e.record.Next(w, e.have(w), nil, e.now); len(e.record.StoppedForMove) != 0 {
		t.Errorf("it still remembers %v", e.record.StoppedForMove)
	}
}

func TestRecordOfMove(t *testing.T) {
	w, e := chained(t)
	for name, c := range map[string]struct {
		before *Verified
		move   *carav1.Move
		disk   bool
		result string
		want   *Verified
	}{
		"nothing":                   {},
		"verified":                  {nil, move(api.MoveSwitching, 2), false, api.MoveVerified, &Verified{"m1", 2}},
		"verified stays":            {&Verified{"m1", 2}, move(api.MoveSwitching, 2), false, "", &Verified{"m1", 2}},
		"a late result":             {nil, move(api.MoveCopying, 3), false, api.MoveVerified, nil},
		"copied":                    {nil, move(api.MoveCopying, 0), false, api.MoveCopied, nil},
		"another attempt":           {&Verified{"m1", 2}, move(api.MoveCopying, 3), false, "", nil},
		"another attempt from disk": {&Verified{"m1", 2}, move(api.MoveCopying, 3), true, "", &Verified{"m1", 2}},
		"an older assignment":       {&Verified{"m1", 2}, move(api.MoveCopying, 2), false, "", &Verified{"m1", 2}},
		"canceled":                  {&Verified{"m1", 2}, nil, false, "", nil},
		"from disk":                 {&Verified{"m1", 2}, nil, true, "", &Verified{"m1", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			next := *w
			next.Move, next.HaveSecrets = c.move, !c.disk
			h := e.have(&next)
			h.Moving.Result = c.result
			r := e.record
			r.Verified = c.before
			got := r.Next(&next, h, nil, e.now)
			if diff := cmp.Diff(c.want, got.Verified); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if known := r.Knows(&next, got); known != (got.Verified == nil || c.before != nil) {
				t.Errorf("Knows: %v", known)
			}
		})
	}
}

func TestReportOfMove(t *testing.T) {
	w, e := chained(t)
	for name, c := range map[string]struct {
		move   *carav1.Move
		moving Moving
		record *Verified
		result string
		says   string
	}{
		"no move":                 {},
		"copying":                 {move(api.MoveCopying, 0), Moving{Progress: "copying volume data to node n2: 1.0 GiB of 2.0 GiB"}, nil, "", "1.0 GiB of 2.0 GiB"},
		"copied":                  {move(api.MoveCopying, 0), Moving{Result: api.MoveCopied}, nil, api.MoveCopied, "copying the project's data to node n2"},
		"failed":                  {move(api.MoveCopying, 0), Moving{Result: api.MoveFailed, Message: "no space"}, nil, api.MoveFailed, "no space"},
		"interrupted":             {move(api.MoveSwitching, 0), Moving{Result: api.MoveInterrupted, Message: "cut"}, nil, api.MoveInterrupted, "cut"},
		"verified, not on disk":   {move(api.MoveSwitching, 0), Moving{Result: api.MoveVerified}, nil, "", "stopping the project"},
		"verified":                {move(api.MoveSwitching, 0), Moving{Result: api.MoveVerified}, &Verified{ID: "m1"}, api.MoveVerified, "complete and verified"},
		"verified by the last":    {move(api.MoveSwitching, 0), Moving{}, &Verified{ID: "m1"}, api.MoveVerified, "complete and verified"},
		"another move's":          {move(api.MoveSwitching, 0), Moving{}, &Verified{ID: "m0"}, "", "stopping the project"},
		"an earlier attempt's":    {move(api.MoveSwitching, 1), Moving{}, &Verified{ID: "m1"}, "", "stopping the project"},
		"the reason of the last":  {&carav1.Move{Id: "m1", To: "n2", Step: api.MoveCopying, Attempts: 1, Message: "the link broke"}, Moving{}, nil, "", "attempt 2, after: the link broke"},
		"a failure after a while": {move(api.MoveSwitching, 1), Moving{Result: api.MoveFailed, Message: strings.Repeat("x", 9000)}, nil, api.MoveFailed, "xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			next := *w
			next.Move = c.move
			h := e.have(&next)
			h.Moving, h.Record.Verified = c.moving, c.record
			r := Report(&next, h, nil, e.now)
			condition := api.FindCondition(r.Conditions, api.CondMoving)
			if r.GetMove().GetResult() != c.result || c.result != "" && r.GetMove().GetId() != "m1" || len(r.GetMove().GetMessage()) > 4096 {
				t.Errorf("reports %v, want %s", r.GetMove(), c.result)
			}
			if !strings.Contains(condition.GetMessage(), c.says) || (condition == nil) != (c.move == nil) {
				t.Errorf("condition %v, want %q", condition, c.says)
			}
		})
	}
}

// TestPropertyOfMove: in any state, a project that switches is stopped and nothing is started. Afterwards it comes back as it
// was.
func TestPropertyOfMove(t *testing.T) {
	rounds := uint64(3000)
	if testing.Short() {
		rounds = 300
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(seed, 7))
		w, e := wanted(r), newWorld()
		w.HaveSecrets = true
		e.scramble(r, w)
		for range r.IntN(12) {
			e.do(w, Step(w, e.have(w), e.now))
		}
		switching := *w
		switching.Move = move(api.MoveSwitching, 0)
		if r.IntN(2) == 0 {
			switching.HaveSecrets, e.record.UID, e.record.Epoch = false, w.UID, w.Epoch
			e.record.Verified = &Verified{ID: "m1"}
		}
		still(t, seed, e, &switching)
		if e.memory.Failure != nil {
			continue
		}
		if r.IntN(2) == 0 {
			e.forget()
		}
		w.HaveSecrets = true
		converge(t, e, w)
	}
}

// still steps until the project is stopped.
func still(t *testing.T, seed uint64, e *world, w *Want) {
	t.Helper()
	for range 100 {
		actions := Step(w, e.have(w), e.now)
		running := false
		for _, a := range actions {
			if a.Kind != KindStopContainer && a.Kind != KindWait && a.Reason != "it belongs to an older assignment" {
				t.Fatalf("seed %d: %v while switching", seed, a)
			}
			running = running || a.Kind != KindWait
		}
		for _, c := range e.containers {
			running = running || up(c)
		}
		if !running {
			return
		}
		e.do(w, actions)
	}
	t.Fatalf("seed %d: it still runs: %+v", seed, e.containers)
}
