package agent

import (
	"reflect"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/step"
)

// TestRecordIsKeptWhole: what the next agent reads is all that this one knew.
func TestRecordIsKeptWhole(t *testing.T) {
	at := time.Unix(1_800_000_000, 5).UTC()
	r := step.Record{
		UID: "u", Epoch: 3,
		Served:    &step.Served{Generation: 2, Restart: "t1", Restarts: map[string]string{"a": "t1"}, Hashes: map[string]string{"a": "h"}},
		Completed: map[string]step.Completion{"job": {RunHash: "h", Restart: "t1", ImageDigest: "d", ContainerID: "c", StartedAt: at}},
		Yielded:   map[string]bool{"c": true},
		InPlace:   map[string]step.InPlace{"c": {Token: "t1", Run: at}},
		Failed:    &step.FailedUpdate{Generation: 2, Restart: "t1", Service: "a", Reason: "CrashLoop"},
	}
	for field, value := range reflect.ValueOf(r).Fields() {
		if value.IsZero() {
			t.Errorf("the test leaves %s out", field.Name)
		}
	}
	d := &disk{dir: t.TempDir()}
	if err := d.saveRecord("p", r); err != nil {
		t.Fatal(err)
	}
	if got := d.loadRecord("p"); !reflect.DeepEqual(got, r) {
		t.Errorf("read %+v, want %+v", got, r)
	}
}
