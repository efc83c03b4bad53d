package ui

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A list is filtered by all words and cut into windows, and its links keep the filter.
func TestListOf(t *testing.T) {
	items := make([]string, 250)
	for i := range items {
		items[i] = fmt.Sprintf("Item-%03d", i)
	}
	before := slices.Clone(items)
	for _, tt := range []struct {
		query, first string
		want         rows
	}{
		{"", "Item-000", rows{All: 250, Found: 250, From: 0, To: 100, Next: "/ui/things?from=100"}},
		{"from=100", "Item-100", rows{All: 250, Found: 250, From: 100, To: 200, Prev: "/ui/things", Next: "/ui/things?from=200"}},
		{"from=9999", "Item-200", rows{All: 250, Found: 250, From: 200, To: 250, Prev: "/ui/things?from=100"}},
		{"from=-7", "Item-000", rows{All: 250, Found: 250, From: 0, To: 100, Next: "/ui/things?from=100"}},
		{"q=item+1&from=x", "Item-001", rows{Query: "item 1", All: 250, Found: 133, From: 0, To: 100, Next: "/ui/things?from=100&q=item+1"}},
		{"q=ITEM-24", "Item-240", rows{Query: "ITEM-24", All: 250, Found: 10, From: 0, To: 10}},
		{"q=nosuch", "", rows{Query: "nosuch", All: 250}},
	} {
		q, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		tt.want.At = "/ui/things"
		got := listOf(request{query: q}, "things", items, func(item string, words []string) bool { return all(words, item) })
		first := ""
		if len(got.Items) > 0 {
			first = got.Items[0]
		}
		if got.rows != tt.want || first != tt.first || len(got.Items) != tt.want.To-tt.want.From {
			t.Errorf("%q: got %+v with %d items from %q, want %+v from %q", tt.query, got.rows, len(got.Items), first, tt.want, tt.first)
		}
	}
	if !slices.Equal(items, before) {
		t.Error("the list of the cache was changed")
	}
	if empty := listOf(request{}, "things", nil, func(string, []string) bool { return true }); empty.From != 0 || empty.To != 0 {
		t.Errorf("an empty list: %+v", empty.rows)
	}
}

// A node is found by its name, its state and its labels, in any mixture.
func TestNodeMatches(t *testing.T) {
	n := &carav1.Node{Metadata: &carav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "eu"}}, Status: &carav1.NodeStatus{State: api.NodeReady}}
	for words, want := range map[string]bool{
		"n1": true, "ready": true, "zone=eu": true, "n1 zone=eu": true, "zone=eu ready": true, "zone=us": false, "n2 zone=eu": false,
	} {
		if got := nodeMatches(n, strings.Fields(words)); got != want {
			t.Errorf("%q: %v, want %v", words, got, want)
		}
	}
}
