package etcd

import (
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestAssembler(t *testing.T) {
	type message struct {
		revisions []int64
		fragment  bool
		want      string // revision x number of events, for each transaction that is complete
	}
	for name, messages := range map[string][]message{
		"whole":                      {{[]int64{1, 1, 2}, false, "1x2 2x1"}, {[]int64{3}, false, "3x1"}},
		"cut in a transaction":       {{[]int64{1, 2, 2}, true, "1x1"}, {[]int64{2, 3}, false, "2x3 3x1"}},
		"cut between two":            {{[]int64{1, 2}, true, "1x1"}, {[]int64{3}, false, "2x1 3x1"}},
		"one in many fragments":      {{[]int64{7}, true, ""}, {[]int64{7}, true, ""}, {[]int64{7}, false, "7x3"}},
		"the last fragment is empty": {{[]int64{4}, true, ""}, {nil, false, "4x1"}},
		"nothing":                    {{nil, false, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			a := &assembler{}
			for i, m := range messages {
				var events []*clientv3.Event
				for _, r := range m.revisions {
					events = append(events, &clientv3.Event{Kv: &mvccpb.KeyValue{ModRevision: r}})
				}
				var got []string
				for _, whole := range a.add(events, m.fragment) {
					got = append(got, fmt.Sprintf("%dx%d", whole[0].Kv.ModRevision, len(whole)))
				}
				if all := strings.Join(got, " "); all != m.want {
					t.Errorf("message %d: got %q, want %q", i, all, m.want)
				}
			}
		})
	}
}

func TestSpan(t *testing.T) {
	k := keys{"/cara/"}
	for _, test := range []struct{ prefix, after, from, to string }{
		{"", "", "/cara/o/", "/cara/o0"},
		{"a/", "", "/cara/o/a/", "/cara/o/a0"},
		{"a/", "a/1", "/cara/o/a/1\x00", "/cara/o/a0"},
		{"a/", "Z", "/cara/o/a/", "/cara/o/a0"},
		{"\xff\xff", "", "/cara/o/\xff\xff", "/cara/o0"},
		{"a\xff", "", "/cara/o/a\xff", "/cara/o/b"},
	} {
		if from, to := k.span(test.prefix, test.after); from != test.from || to != test.to {
			t.Errorf("span(%q, %q) = %q, %q; want %q, %q", test.prefix, test.after, from, to, test.from, test.to)
		}
	}
}
