package logstream

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A reopened stream repeats lines of the marked time; two lines with the same time are two lines.
func TestLogMarkGoesOnWithTheNextLine(t *testing.T) {
	log := func(service, text string, at int64) *carav1.LogLine {
		return &carav1.LogLine{Service: service, Line: text, Time: timestamppb.New(time.Unix(at, 0))}
	}
	mark := Mark{}
	var shown []string
	read := func(lines ...*carav1.LogLine) {
		for _, l := range lines {
			if mark.IsNew(l) {
				shown = append(shown, l.GetLine())
			}
		}
	}
	read(log("web", "a", 1), log("web", "b", 2), log("web", "c", 2), log("db", "x", 1))
	if !mark.Away() || mark.Away() {
		t.Error("a stream that broke off is told once")
	}
	req := &carav1.LogsRequest{Name: "shop", Tail: 5}
	mark.Resume(req)
	if req.GetSince().GetSeconds() != 1 || req.GetTail() != 0 {
		t.Errorf("asks for %v", req)
	}
	read(log("web", "a", 1), log("db", "x", 1), log("web", "b", 2), log("web", "c", 2), log("web", "d", 2), log("db", "y", 3), log("web", "e", 4))
	mark.Resume(req)
	read(log("web", "e", 4), log("web", "f", 4), log("", "no time", 0))
	want := []string{"a", "b", "c", "x", "d", "y", "e", "f", "no time"}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Error(diff)
	}
	if !mark.Away() {
		t.Error("lines came in between: it is told again")
	}
}

// The lines of standard output and standard error are not ordered by time, nor are those of two containers of a service. All of
// them are shown, also after a broken stream.
func TestLogMarkKeepsLinesOutOfOrder(t *testing.T) {
	log := func(text string, at int64, stderr bool) *carav1.LogLine {
		return &carav1.LogLine{Service: "job", Line: text, Time: timestamppb.New(time.Unix(at, 0)), Stderr: stderr}
	}
	first := []*carav1.LogLine{log("a", 1, false), log("b", 4, false), log("exit", 3, true), log("other container", 2, false)}
	mark := Mark{}
	var shown []string
	read := func(lines ...*carav1.LogLine) {
		for _, l := range lines {
			if mark.IsNew(l) {
				shown = append(shown, l.GetLine())
			}
		}
	}
	read(first...)
	mark.Resume(&carav1.LogsRequest{})
	read(append(first, log("late", 4, true), log("last", 5, false))...)
	if diff := cmp.Diff([]string{"a", "b", "exit", "other container", "late", "last"}, shown); diff != "" {
		t.Error(diff)
	}
}
