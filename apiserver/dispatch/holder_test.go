package dispatch

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// fixed is a directory that says what a test sets.
type fixed struct {
	directory.Directory
	holders map[string]directory.Holder
}

func (f fixed) Self() string { return "a" }

func (f fixed) Holder(node string) (directory.Holder, bool) {
	h, ok := f.holders[node]
	return h, ok
}

// TestNodeServers: whichever sign of a server's loss comes first, its nodes are found once, and no others.
func TestNodeServers(t *testing.T) {
	begin := time.Unix(1000, 0)
	both := map[string]*carav1.Server{"a": {}, "b": {}}
	alone := map[string]*carav1.Server{"b": {}}
	tests := []struct {
		name  string
		steps func(s nodeServers, dir fixed) map[string]string
		want  map[string]string
	}{
		{"the sessions vanish first", func(s nodeServers, dir fixed) map[string]string {
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			if early := s.lost(both, begin); len(early) > 0 {
				t.Errorf("nodes of a server that runs are lost: %v", early)
			}
			return s.lost(alone, begin.Add(time.Second))
		}, map[string]string{"n1": "a"}},
		{"the server vanishes first", func(s nodeServers, dir fixed) map[string]string {
			s.lost(alone, begin)
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			return s.lost(alone, begin)
		}, map[string]string{"n1": "a"}},
		{"the agent has left long before", func(s nodeServers, dir fixed) map[string]string {
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			s.note("n1", dir, begin.Add(maxSignGap)) // nothing new
			return s.lost(alone, begin.Add(maxSignGap+time.Second))
		}, nil},
		{"the agent is at the other server", func(s nodeServers, dir fixed) map[string]string {
			dir.holders["n1"] = directory.Holder{Server: "b"}
			s.note("n1", dir, begin)
			return s.lost(alone, begin)
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, dir := newNodeServers(), fixed{holders: map[string]directory.Holder{"n1": {Server: "a"}}}
			s.note("n1", dir, begin)
			if got := test.steps(s, dir); !maps.Equal(got, test.want) {
				t.Errorf("lost are %v, want %v", got, test.want)
			}
			if again := s.lost(map[string]*carav1.Server{}, begin); len(test.want) > 0 && len(again) > 0 {
				t.Errorf("found twice: %v", again)
			}
		})
	}
}

// TestUptime: silence counts only while this server runs, as its own clock or the time of day tells.
func TestUptime(t *testing.T) {
	begin := time.Now()
	for name, test := range map[string]struct {
		looks []time.Duration // since the begin, by the machine's clock
		want  bool            // silent at the last look
	}{
		"heard just before":          {[]time.Duration{time.Second}, false},
		"silent":                     {looksUntil(NodeLease), true},
		"paused, then a look":        {[]time.Duration{time.Second, NodeLease + time.Second}, false},
		"silent again after a pause": {append([]time.Duration{NodeLease}, looksUntil(2 * NodeLease)[20:]...), true},
	} {
		t.Run(name, func(t *testing.T) {
			v, now := uptime{looked: begin, since: begin}, begin
			for _, after := range test.looks {
				now = begin.Add(after)
				v.look(now, now)
			}
			if got := v.silent(begin, now); got != test.want {
				t.Errorf("silent is %v", got)
			}
		})
	}
	frozen := uptime{looked: begin}
	if !frozen.paused(begin.Add(time.Hour).Round(0)) || frozen.paused(begin.Add(time.Second)) {
		t.Error("a pause is not seen, or one that was none")
	}
	if v := (uptime{since: begin}); v.silent(time.Time{}, begin.Add(time.Hour)) {
		t.Error("an agent that was never heard of is silent")
	}
}

// looksUntil are looks once a second.
func looksUntil(end time.Duration) (out []time.Duration) {
	for at := time.Second; at <= end; at += time.Second {
		out = append(out, at)
	}
	return out
}

// TestStillSilent: a server that does not have an agent any more, or was paused, does not say that the agent is silent.
func TestStillSilent(t *testing.T) {
	last := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		holder directory.Holder
		beat   time.Time
		held   bool
		looked time.Time
		want   bool
	}{
		"silent":                      {directory.Holder{Server: "a"}, last, true, time.Now(), true},
		"heard of":                    {directory.Holder{Server: "a"}, last.Add(1), true, time.Now(), false},
		"another server has it":       {directory.Holder{Server: "b"}, last, true, time.Now(), false},
		"the session is not recorded": {directory.Holder{Server: "a"}, last, false, time.Now(), false},
		"paused since":                {directory.Holder{Server: "a"}, last, true, time.Now().Add(-time.Minute), false},
	} {
		t.Run(name, func(t *testing.T) {
			me := &Session{Node: "n1", held: test.held}
			d := &Dispatcher{Directory: fixed{holders: map[string]directory.Holder{"n1": test.holder}}, Objects: &objects.Service{Live: live.New(time.Now())}}
			d.Sessions.Enter(me)
			d.Objects.Live.Beats.Note("n1", test.beat)
			if err := d.Holders().stillSilent(me, last, uptime{looked: test.looked}); (err == nil) != test.want {
				t.Errorf("still silent: %v", err)
			}
		})
	}
}

// meanwhile is a directory where something happens after it was asked, before the caller has the answer.
type meanwhile struct {
	fixed
	happens func()
}

func (m meanwhile) Holder(node string) (directory.Holder, bool) {
	h, ok := m.fixed.Holder(node)
	m.happens()
	return h, ok
}

// TestASessionThatBeginsMeanwhileStays: the agent connects again, while its server looks at news of the earlier session.
func TestASessionThatBeginsMeanwhileStays(t *testing.T) {
	for name, earlier := range map[string]map[string]directory.Holder{
		"it was at another server": {"n1": {Server: "b"}},
		"it has left":              {},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancelCause(t.Context())
			defer end(nil)
			begun := &Session{Node: "n1", Instance: "1", held: true, End: end}
			dir := fixed{holders: earlier}
			h := Holders{Sessions: new(Sessions)}
			asked := 0
			h.Directory = meanwhile{dir, func() {
				if asked++; asked == 2 { // the first one is the look for a record that is left
					dir.holders["n1"] = directory.Holder{Server: "a", Instance: "1"}
					h.Sessions.Enter(begun)
				}
			}}
			h.endReplaced("n1")
			if asked != 2 || ctx.Err() != nil {
				t.Errorf("asked %d times, the new session ended with %v", asked, context.Cause(ctx))
			}
		})
	}
}
