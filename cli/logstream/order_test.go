package logstream

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestLogOrder(t *testing.T) {
	at := func(second int, text string) *carav1.LogLine {
		return &carav1.LogLine{Line: text, Time: timestamppb.New(time.Unix(int64(second), 0))}
	}
	two := 2 * weight(at(0, "a"))
	tests := []struct {
		name, want string
		most       int
		lines      []*carav1.LogLine
	}{
		{"none", "", MaxHeld, nil},
		{"by time", "abcd", MaxHeld, []*carav1.LogLine{at(2, "b"), at(4, "d"), at(1, "a"), at(3, "c")}},
		{"as they came where the time is one", "abc", MaxHeld, []*carav1.LogLine{at(1, "a"), at(1, "b"), at(1, "c")}},
		{"without a time, after what came before", "bxc", MaxHeld, []*carav1.LogLine{at(2, "b"), {Line: "x"}, at(3, "c")}},
		{"as they came without holding any", "badc", 0, []*carav1.LogLine{at(2, "b"), at(1, "a"), at(4, "d"), at(3, "c")}},
		{"no more is held than may be", "bcade", two, []*carav1.LogLine{at(3, "c"), at(4, "d"), at(2, "b"), at(5, "e"), at(1, "a")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			o := &Order{Most: tt.most, Emit: func(l *carav1.LogLine) { got.WriteString(l.GetLine()) }}
			for _, l := range tt.lines {
				o.Add(l)
				if o.bytes > tt.most {
					t.Errorf("%d bytes are held, at most %d may be", o.bytes, tt.most)
				}
			}
			o.Flush()
			if got.String() != tt.want {
				t.Errorf("got %q, want %q", got.String(), tt.want)
			}
		})
	}
}
