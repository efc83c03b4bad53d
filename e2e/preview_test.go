package e2e

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestPreviewExpiresWhileItsManifestIsInGit and is not made again: not by polls, not by a push of something else, not
// by a server that was restarted; but by a later expireAt.
func TestPreviewExpiresWhileItsManifestIsInGit(t *testing.T) {
	w := oneNode(t)
	name, other := w.name("pr-42"), w.name("other")
	preview := func(until time.Time) string {
		return w.web(name, testimage.WebV1) + "  expireAt: \"" + until.UTC().Format(time.RFC3339) + "\"\n"
	}
	repo := w.repository("previews")
	at := time.Now().Add(20 * time.Second) // long enough to run on a slow machine
	repo.Write("pr-42.yaml", preview(at))
	repo.Write("other.yaml", w.web(other, testimage.WebV1))
	w.push(repo, "Preview 42")
	w.running(name, other)
	w.answers("n1", name+".test", "/", 200, "web v1")
	w.gone(name)
	if early := time.Until(at.Truncate(time.Second)); early > 0 {
		t.Errorf("gone %s before its time", early)
	}
	stays := func() {
		t.Helper()
		if r := w.ctl("", "get", "project", name); r.Code != 1 || r.Stderr != "error: project \""+name+"\" not found\n" {
			t.Errorf("%+v", r)
		}
	}
	repo.Write("other.yaml", w.web(other, testimage.WebV2))
	w.push(repo, "Change something else")
	w.answers("n1", other+".test", "/", 200, "web v2")
	stays()

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Stop(ctx))
	w.must(w.StartServer(ctx))
	w.ready("n1")
	w.ctl("", "reconcile", "previews")
	repo.Write("other.yaml", w.web(other, testimage.WebV1))
	w.push(repo, "Change it back")
	w.answers("n1", other+".test", "/", 200, "web v1")
	stays()
	w.says("events", w.ctl("", "get", "events", "--for", "project/"+name).Stdout, "Expired")

	repo.Write("pr-42.yaml", preview(time.Now().Add(time.Hour)))
	w.push(repo, "Keep the preview for another hour")
	w.running(name)
}
