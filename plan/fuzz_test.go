package plan

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// sourceView is the state for one source: the source, and a row for each project.
type sourceView struct {
	source *carav1.Source
	rows   []Row
}

// spell makes a sourceView out of bytes: one for the source, two for each project.
func spell(data []byte) sourceView {
	w := sourceView{source: testlaw.Source()}
	if len(data) == 0 {
		return w
	}
	w.source.Status.Snapshot.Complete = data[0]&1 == 0
	w.source.Spec.AllowEmpty = data[0]&2 == 0
	w.source.Spec.Suspend = data[0]&4 != 0
	if data[0]&8 != 0 {
		w.source.Status.ConfirmedRevision = testlaw.Revision
	}
	w.source.Spec.Adopt = []string{"", api.AdoptNever, api.AdoptIfUnowned, api.AdoptAlways}[data[0]>>4&3]
	for i, pair := range slices.Collect(slices.Chunk(data[1:], 2)) {
		if len(pair) == 2 && i < 40 {
			w.rows = append(w.rows, spellRow(fmt.Sprintf("p%02d", i), pair[0], pair[1]))
		}
	}
	return w
}

func spellRow(name string, c, p byte) Row {
	var cl *carav1.Claim
	image := fmt.Sprintf("a:%d", c>>3&3)
	status := []func(*carav1.Claim){func(*carav1.Claim) {}, testlaw.Applied}[c>>5&1]
	switch c & 3 {
	case 0:
		cl = testlaw.Claim(name, image, status)
	case 1:
		cl = testlaw.Claim(name, image, status, testlaw.Gone)
	case 2:
		cl = testlaw.Claim(name, image, status, testlaw.Held("bad file"))
	}
	var pr *carav1.Project
	if p&7 != 0 {
		owner := []string{"", "source/platform", "source/platform", "source/platform", "source/platform", "user/ada", "source/team", ""}[p&7]
		pr = testlaw.Project(name, fmt.Sprintf("a:%d", p>>3&3), owner)
		if p&32 != 0 {
			testlaw.Terminating(api.ReasonPruned)(pr)
		}
	}
	r := row(cl, pr)
	r.Name = name
	if p&64 != 0 {
		rival(testlaw.Claim(name, "b:1", testlaw.From("team", "s2", "team.yaml")))(&r)
	}
	if r.owner() == "source/team" {
		r.Owner = testlaw.Other("team", "s2")
	}
	if c&64 != 0 {
		override(api.OverrideSpec)(&r)
	}
	if c&128 != 0 && pr == nil {
		override(api.OverrideDeletion)(&r)
	}
	return r
}

// do applies a plan to a sourceView, like the loop and the server.
func (w *sourceView) do(p Plan) {
	for _, s := range p.Steps {
		i := slices.IndexFunc(w.rows, func(r Row) bool { return r.Name == s.Project })
		r := w.rows[i]
		switch {
		case s.Action.Applies():
			next := proto.CloneOf(r.Claim.Spec.Project)
			next.Metadata.Uid, next.Metadata.Owner = "u-"+r.Name, "source/platform"
			next.Status = &carav1.ProjectStatus{Phase: api.PhasePending}
			r.Project, r.Live, r.Owner = next, api.ClaimHash(next), nil
		case s.Action == Delete:
			r.Project, r.Live = nil, ""
		case s.Action == Forget:
			r.Claim, r.Status = nil, nil
		}
		if r.Claim != nil {
			if st := s.ClaimStatus(Outcome{State: s.State, Message: s.Message, UID: r.UID()}, testlaw.Now); st != nil {
				r.Status = st
			}
		}
		w.rows[i] = r
	}
}

// meant returns the expected image and owner of a row's project after the plan, computed differently than in Diff; empty if
// there must be no project. gate reports whether projects that left the source may be deleted.
func meant(w *sourceView, r Row, gate bool) string {
	if r.Project == nil && r.Claim == nil {
		return ""
	}
	stays := ""
	if r.Project != nil {
		stays = r.Project.Spec.Services[0].Image + " " + r.owner()
	}
	suspended := w.source.Spec.Suspend
	if r.Claim == nil || r.Claim.Spec.Held != "" || suspended || r.going() || (r.Override != nil && (r.Project == nil || r.owner() == "source/platform")) {
		return stays
	}
	git := r.Claim.Spec.Project.Spec.Services[0].Image + " source/platform"
	adopt := w.source.Spec.Adopt
	if !r.Claim.Spec.Present {
		if r.owner() == "source/platform" && len(r.Rivals) == 0 && gate {
			return ""
		}
		return stays
	}
	switch owner := r.owner(); {
	case r.Project == nil, owner == "source/platform":
		return git
	case owner == "" && adopt != api.AdoptNever, owner == "user/ada" && adopt == api.AdoptAlways:
		return git
	case owner == "source/team" && len(r.Rivals) == 0:
		return git
	}
	return stays
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte{0, 0, 0, 8, 1, 1, 2, 33, 1})
	f.Add([]byte{1, 33, 1, 33, 1, 0, 9})
	f.Add([]byte{8, 33, 1, 33, 1, 33, 1, 33, 1, 33, 1, 0, 6})
	f.Add([]byte{0x30, 0, 5, 0, 6, 0, 70, 66, 9, 128, 0, 33, 33})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := spell(data)
		before := spell(data)
		asked, let := map[string]bool{}, map[string]bool{} // of the gate, and by the gate
		for range 2 {                                      // the second pass deletes what the first had to take into the inventory
			plan := Diff(Input{Source: w.source, Rows: w.rows, Now: testlaw.Now})
			for _, name := range plan.Prune.Delete {
				asked[name] = true
				let[name] = let[name] || plan.Prune.Allowed
			}
			w.do(plan)
		}
		deleted := 0
		for i, r := range w.rows {
			have := ""
			if r.Project != nil {
				have = r.Project.Spec.Services[0].Image + " " + r.owner()
			} else if before.rows[i].Project != nil {
				deleted++
			}
			if want := meant(&before, before.rows[i], let[r.Name]); have != want {
				t.Errorf("%s is %q, want %q", r.Name, have, want)
			}
			if meant(&before, before.rows[i], true) == "" && before.rows[i].Project != nil && !asked[r.Name] {
				t.Errorf("%s left the source and the gate was not asked", r.Name)
			}
		}
		if closed := !before.source.Status.Snapshot.Complete || before.source.Spec.Suspend; closed && deleted > 0 {
			t.Errorf("%d projects deleted on a source that must not prune", deleted)
		}
		again := Diff(Input{Source: w.source, Rows: w.rows, Now: testlaw.Now})
		for i := range again.Steps {
			s := &again.Steps[i]
			if s.Action.Applies() || s.Action == Delete {
				t.Errorf("a second pass would %s", line(*s))
			}
			if st := s.ClaimStatus(s.Expected(), testlaw.Now.Add(1)); st != nil && s.Row.Claim != nil && s.Action != Forget {
				t.Errorf("a second pass would write the status of %s: %v", s.Project, st)
			}
		}
	})
}
