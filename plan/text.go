package plan

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// DiffText lists the fields that differ, the first few with their values.
func DiffText(diff []*carav1.FieldDiff) string {
	const most, width = 5, 80
	var b strings.Builder
	for i, d := range diff {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(diff)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s -> %s", d.Path, value(d.Old, width), value(d.New, width))
	}
	return b.String()
}

// value returns a field's value for a message; (none) if it is absent.
func value(s string, width int) string {
	if s == "" {
		return "(none)"
	}
	return text.Clip(s, width)
}

func stamp(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) }
