package sources

import (
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestDoubtful: what one look at a live source says about a removal or a new error counts only after a second look that sees the same.
func TestDoubtful(t *testing.T) {
	problem := func(message string) []*carav1.FileProblem {
		return []*carav1.FileProblem{{File: "a.yaml", Message: message}}
	}
	removal, bad := Change{Absent: []string{"p"}}, Change{Problems: problem("half")}
	type look struct {
		at       time.Duration // since the first one
		revision string
		change   Change
		doubtful bool
	}
	for name, tt := range map[string]struct {
		remote bool
		head   *carav1.Snapshot
		looks  []look
	}{
		"nothing is wrong":       {looks: []look{{0, "1", Change{Projects: 1}, false}}},
		"a git branch":           {remote: true, looks: []look{{0, "1", removal, false}, {0, "2", bad, false}}},
		"a removal":              {looks: []look{{0, "1", removal, true}, {secondLook - 1, "1", removal, true}, {secondLook, "1", removal, false}}},
		"an error":               {looks: []look{{0, "1", bad, true}, {secondLook - 1, "1", bad, true}, {secondLook, "1", bad, false}}},
		"an error that is known": {head: &carav1.Snapshot{FileErrors: problem("half")}, looks: []look{{0, "1", bad, false}}},
		"another error":          {head: &carav1.Snapshot{FileErrors: problem("other")}, looks: []look{{0, "1", bad, true}}},
		"another content":        {looks: []look{{0, "1", bad, true}, {secondLook, "2", bad, true}, {2*secondLook - 1, "2", bad, true}, {2 * secondLook, "2", bad, false}}},
		"errors without an end":  {looks: []look{{0, "1", bad, true}, {patience - 1, "2", bad, true}, {patience, "3", bad, false}}},
		"removals without an end": {looks: []look{
			{0, "1", removal, true},
			{patience, "2", removal, true},
			{10 * patience, "3", removal, true},
			{10*patience + secondLook, "3", removal, false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			st := &state{driver: struct{ Live }{}}
			if tt.remote {
				st.driver = struct{ Driver }{}
			}
			for _, l := range tt.looks {
				p := &pass{st: st, began: time.Unix(0, 0).Add(l.at)}
				if got := p.doubtful(&Tree{Revision: l.revision}, l.change, tt.head); got != l.doubtful {
					t.Errorf("revision %s after %s: doubtful is %v, want %v", l.revision, l.at, got, l.doubtful)
				}
			}
		})
	}
}
