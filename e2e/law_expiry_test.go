package e2e

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// soon is so many seconds from now, as a manifest has it.
func soon(seconds int) string {
	return time.Now().Add(time.Duration(seconds) * time.Second).UTC().Format(time.RFC3339)
}

// A row: expireAt in the past at first sight.
func TestLawExpiredAtFirstSight(t *testing.T) {
	w := law(t)
	o := w.origin("platform", map[string]string{
		"pr.yaml": declared("pr", "web:1", "expireAt: 2020-01-01T00:00:00Z"), "a.yaml": declared("a", "web:1"),
	})
	w.claimSays("platform", "pr", "Expired", "expireAt 2020-01-01T00:00:00Z has passed; set a later one in the manifest, or remove it")
	w.well("platform", api.CondConflict)
	w.stay("a")
	o.Write("pr.yaml", declared("pr", "web:1", "expireAt: "+soon(3600)))
	o.save("A later one")
	w.asks("pr", "web:1")
	w.claim("platform", "pr", "Applied")
}

// A row: expires while still in git.
func TestLawExpiresWhileStillInGit(t *testing.T) {
	w := law(t)
	at := soon(5)
	o := w.origin("platform", map[string]string{
		"pr.yaml": declared("pr", "web:1", "expireAt: "+at), "gone.yaml": declared("gone", "web:1", "expireAt: "+at), "a.yaml": declared("a", "web:1"),
	})
	w.asks("pr", "web:1")
	w.gone("pr", "gone")
	late := time.Now()
	if end, err := time.Parse(time.RFC3339, at); err != nil || late.Before(end) {
		t.Errorf("gone at %s, before %s (%v)", late, at, err)
	}
	w.claimSays("platform", "pr", "Expired", "expireAt "+at+" has passed; set a later one in the manifest, or remove it")
	w.says("the events", w.ctl("", "get", "events", "--for", "project/pr").Stdout, "Expired")
	w.crash()
	w.start()
	w.nothingWritten("platform")
	w.stay("a")

	o.Write("pr.yaml", declared("pr", "web:2", "expireAt: "+soon(3600)))
	o.Remove("gone.yaml")
	o.save("Let pr live longer, and gone be gone")
	w.asks("pr", "web:2")
	w.stay("a", "pr")
	o.Write("gone.yaml", declared("gone", "web:1"))
	o.save("And back, without an end")
	w.asks("gone", "web:1")
}

// A row: caractrl extend.
func TestLawExtend(t *testing.T) {
	w := law(t)
	at := soon(8)
	o := w.origin("platform", map[string]string{"pr.yaml": declared("pr", "web:1", "expireAt: "+at), "a.yaml": declared("a", "web:1")})
	w.claim("platform", "pr", "Applied")
	if r := w.ctl("", "extend", "pr", "1h", "--reason", "demo"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	w.says("overrides", w.ctl("", "get", "overrides").Stdout, "pr", "Expiry", "user/admin", "demo")
	o.Write("pr.yaml", declared("pr", "web:2", "expireAt: "+at))
	o.save("The spec is git's still")
	w.asks("pr", "web:2")
	w.until("pr", "outlives what git says", func(p *carav1.Project) bool {
		end, err := time.Parse(time.RFC3339, at)
		return err == nil && time.Now().After(end.Add(2*time.Second)) && p.GetMetadata().GetDeletionTimestamp() == nil
	})
	w.crash()
	w.start()
	w.polled("platform")
	w.stay("a", "pr")
	o.Remove("pr.yaml")
	o.save("Merged")
	w.gone("pr")
	if r := w.ctl("", "extend", "a", "1h"); r.Code != 1 {
		t.Errorf("a project without an end was extended: %+v", r)
	}
}
