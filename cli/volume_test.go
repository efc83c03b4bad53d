package cli

import (
	"strings"
	"testing"
)

// withVolume starts a project with the Managed volume db on n1, whose engine has it.
func (h *testServer) withVolume(t *testing.T, project string) {
	t.Helper()
	r := h.ctl(t.Context(), `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"`+project+`"},
		"spec":{"services":[{"name":"web","image":"nginx:1","volumeMounts":[{"name":"db","mountPath":"/d"}]}],"volumes":[{"name":"db","type":"Managed"}]}}`,
		"apply", "-f", "-")
	if r.code != 0 {
		t.Fatalf("apply %s: %s", project, r.err)
	}
	must(t, h.schedule(t.Context(), project, "Bind", "n1", ""))
}

func TestWatchOfVolumes(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.withVolume(t, "shop")
	h.withVolume(t, "blog")
	must(t, h.holds(t.Context(), "n1", "shop.db=2048", "blog.db"))
	all, _ := h.start(t, "get", "volumes", "-w")
	kept, _ := h.start(t, "get", "volumes", "--state", "Retained", "-w")
	named, _ := h.start(t, "get", "volume", "shop.db", "-w", "-o", "name")
	of, _ := h.start(t, "get", "volumes", "--project", "blog", "--node", "n1", "-o", "name", "-w")
	all.until(t, "shop.db InUse n1 shop 2.0Ki")
	kept.until(t, "NAME STATE")
	named.until(t, "volume/shop.db\n")
	of.until(t, "volume/blog.db\n")
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	all.until(t, "shop.db Retained n1 shop 2.0Ki")
	kept.until(t, "shop.db Retained n1")
	named.until(t, "volume/shop.db\nvolume/shop.db\n")
	h.withVolume(t, "shop") // it leaves the filter, and is not gone
	kept.until(t, "shop.db InUse n1")
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "blog", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	of.until(t, "volume/blog.db\nvolume/blog.db\n")
	if r := h.ctl(t.Context(), "", "delete", "volume", "shop.db", "--yes"); r.code != 0 {
		t.Fatal(r.err)
	}
	all.until(t, "shop.db Deleting")
	must(t, h.holds(t.Context(), "n1", "blog.db"))
	all.until(t, "shop.db (gone)")
	if strings.Contains(kept.String(), "(gone)") || strings.Contains(of.String(), "shop") {
		t.Errorf("watches with filters show what they should not:\n%s%s", kept, of)
	}
}

// Deletion ends when the node has confirmed it. A new volume of the name does not matter.
func TestDeleteVolumeWaitsForItsNode(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.withVolume(t, "shop")
	must(t, h.holds(t.Context(), "n1", "shop.db"))
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	out, stop := h.start(t, "delete", "--wait", "volume/shop.db", "volume/none", "--yes")
	out.until(t, "volume \"shop.db\" is being deleted: node n1 has not confirmed it yet\n")
	h.withVolume(t, "shop")
	list := h.ctl(t.Context(), "", "get", "volumes", "-o", "name")
	if n := strings.Count(list.out, "volume/"); n != 2 {
		t.Fatalf("there are %d volumes, want the new one and the one that is being deleted:\n%s%s", n, list.out, list.err)
	}
	if strings.Contains(out.String(), "\" deleted") {
		t.Fatalf("it ended too early:\n%s", out)
	}
	must(t, h.holds(t.Context(), "n1", "shop.db"))
	out.until(t, "error: volume \"none\" not found\n")
	want := "volume \"shop.db\" is being deleted: node n1 has not confirmed it yet\nvolume \"shop.db\" deleted\nerror: volume \"none\" not found\n"
	if code := stop(); code != 1 || out.String() != want {
		t.Errorf("ended with %d and\n%s, want\n%s", code, out.String(), want)
	}
	if r := h.ctl(t.Context(), "", "get", "volume", "shop.db"); r.code != 0 {
		t.Errorf("the new volume is gone, too: %s", r.err)
	}
}
