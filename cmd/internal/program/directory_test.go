package program

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestDescriptionsAreDecodedOnce: a description is decoded when a server begins or says something else, and not at each call.
func TestDescriptionsAreDecodedOnce(t *testing.T) {
	var d descriptions
	first := map[string][]byte{"1": encode(&carav1.Server{Id: "1", Host: "a"}), "2": []byte("an older version")}
	before := d.decode(first)
	want := map[string]*carav1.Server{"1": {Id: "1", Host: "a"}, "2": {Id: "2", Host: "an older version"}}
	if diff := cmp.Diff(want, before, protocmp.Transform()); diff != "" {
		t.Errorf("the servers (-want +got):\n%s", diff)
	}
	for id, again := range d.decode(first) {
		if again != before[id] {
			t.Errorf("server %s is decoded again", id)
		}
	}
	after := d.decode(map[string][]byte{"1": encode(&carav1.Server{Id: "1", Host: "b"})})
	want = map[string]*carav1.Server{"1": {Id: "1", Host: "b"}}
	if diff := cmp.Diff(want, after, protocmp.Transform()); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
	if before["1"].GetHost() != "a" || len(d.decoded) != 1 {
		t.Errorf("an earlier answer has changed (%v), or %d descriptions are kept", before["1"], len(d.decoded))
	}
}
