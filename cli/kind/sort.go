package kind

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/term"
)

// Sort sorts objects by a column (numbers by value, AGE youngest first) or by a jsonpath.
func Sort(k Kind, objects []proto.Message, by string, now time.Time) error {
	if by == "" {
		return nil
	}
	type keyed struct {
		object proto.Message
		key    term.Cell
	}
	keys := make([]keyed, len(objects))
	for i, obj := range objects {
		key, err := sortKey(k, obj, by, now)
		if err != nil {
			return err
		}
		keys[i] = keyed{obj, key}
	}
	slices.SortStableFunc(keys, func(x, y keyed) int {
		return cmp.Or(cmp.Compare(x.key.Order, y.key.Order), strings.Compare(x.key.Text, y.key.Text))
	})
	for i := range keys {
		objects[i] = keys[i].object
	}
	return nil
}

func sortKey(k Kind, obj proto.Message, by string, now time.Time) (term.Cell, error) {
	if !strings.ContainsAny(by, ".{") {
		head := k.Head(true)
		i := slices.IndexFunc(head, func(h string) bool { return strings.EqualFold(h, by) })
		if i < 0 {
			return term.Cell{}, fmt.Errorf("no column %q to sort by: %s have %s", by, k.Plural, strings.Join(head, ", "))
		}
		return k.Row(obj, now)[i], nil
	}
	value, err := document(false, []proto.Message{obj})
	if err != nil {
		return term.Cell{}, err
	}
	var b strings.Builder
	if err := printPath(&b, by, value); err != nil {
		return term.Cell{}, err
	}
	key := term.Cell{Text: b.String()}
	if n, err := strconv.ParseInt(strings.TrimSpace(key.Text), 10, 64); err == nil {
		key.Order = n
	}
	return key, nil
}
