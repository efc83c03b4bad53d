package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// storedEvent returns what the store's log has about an event.
func storedEvent(t *testing.T, name, message string, rev int64) store.Event {
	t.Helper()
	value, err := Encode(&carav1.Event{
		Metadata: &carav1.ObjectMeta{Name: name}, Message: message, Object: &carav1.ObjectRef{Kind: api.KindProject, Name: "shop"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return store.Event{KV: store.KV{Key: Key(api.KindEvent, name), Value: value, Created: rev, Modified: rev}}
}

func applied(t *testing.T, c *Cache, rev int64, events ...store.Event) Transaction {
	t.Helper()
	tx, err := DecodeChange(store.Change{Revision: rev, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(tx)
	recent, _, _ := c.After(rev - 1)
	return recent[0]
}

// TestEventsAreKeptEncoded: an event in the cache is what was stored, and its change has the state before.
func TestEventsAreKeptEncoded(t *testing.T) {
	c := NewCache(10)
	applied(t, c, 1, storedEvent(t, "one", "first", 1))
	second := storedEvent(t, "one", "second", 2)
	tx := applied(t, c, 2, second)
	clear(second.KV.Value) // it belongs to the store
	if before := As[*carav1.Event](tx.Changes[0].Old); before.GetMessage() != "first" {
		t.Errorf("the event before is %v", before)
	}
	want := &carav1.Event{
		Metadata: &carav1.ObjectMeta{Name: "one", ResourceVersion: "2"}, Message: "second", Object: &carav1.ObjectRef{Kind: api.KindProject, Name: "shop"},
	}
	got, ok := Get[*carav1.Event](c, "one")
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || !ok {
		t.Error(diff)
	}
	if e := c.View().Entry(api.KindEvent, "one"); e.Message() == e.Message() {
		t.Error("the event is kept decoded")
	}
	if e := c.View().Entry(api.KindEvent, "one"); !e.MayHave("second") || e.MayHave("first") {
		t.Error("the text of an event is not found, or one that it does not have")
	}
	if on := c.View().EventsOn(api.KindProject, "shop"); !slices.Equal(on, []string{"one"}) {
		t.Errorf("the project has the events %v", on)
	}
	tx = applied(t, c, 3, store.Event{Delete: true, KV: store.KV{Key: Key(api.KindEvent, "one"), Modified: 3}})
	if last := As[*carav1.Event](tx.Changes[0].Old); last.GetMessage() != "second" || c.View().Entry(api.KindEvent, "one") != nil {
		t.Errorf("the deletion of %v left %v", last, c.View().Entry(api.KindEvent, "one"))
	}
}

// TestChunks: a watch begins with all objects, in chunks that are neither too many objects nor too large.
func TestChunks(t *testing.T) {
	c, want := NewCache(1), []string{}
	add := func(rev int64, name string, size int) {
		applied(t, c, rev, storedEvent(t, name, strings.Repeat("x", size), rev))
		want = append(want, name)
	}
	for i := range 3 {
		add(int64(i+1), fmt.Sprintf("a%d", i), firstBytes/2)
	}
	for i := range firstChunk + 1 {
		add(int64(i+10), fmt.Sprintf("b%03d", i), 1)
	}
	var names []string
	var chunks []int
	each := func(objects []Change) error {
		chunks = append(chunks, len(objects))
		for _, ch := range objects {
			names = append(names, ch.Name)
		}
		return nil
	}
	if err := c.View().chunks([]string{api.KindProject, api.KindEvent}, each); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, want) || !slices.Equal(chunks, []int{1, 1, 500, 2}) {
		t.Errorf("the chunks %v have %d of %d objects", chunks, len(names), len(want))
	}
	left, calls := errors.New("the client has left"), 0
	leave := func([]Change) error {
		calls++
		return left
	}
	if err := c.View().chunks([]string{api.KindEvent}, leave); !errors.Is(err, left) || calls != 1 {
		t.Errorf("the error is %v after %d chunks", err, calls)
	}
}
