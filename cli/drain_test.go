package cli

import (
	"strings"
	"testing"
)

func TestDrainShowsEachProjectThatLeaves(t *testing.T) {
	h := newTestServer(t)
	for _, n := range []string{"n1", "n2"} {
		must(t, h.node(t.Context(), n))
	}
	for _, p := range []string{"a", "b", "c", "d", "e", "elsewhere"} {
		h.apply(t, p, "nginx:1")
		node := "n1"
		if p == "elsewhere" {
			node = "n2"
		}
		must(t, h.schedule(t.Context(), p, "Bind", node, ""))
		must(t, h.report(t.Context(), p, "Running", "Running", "Ready", ""))
	}
	must(t, h.report(t.Context(), "e", "Failed", "Failed", "Crashed", "web exits again and again"))
	out, stop := h.start(t, "drain", "n1", "--max-parallel", "2")
	out.until(t, "node/n1 is being drained: 4 projects to move\n")
	must(t, h.schedule(t.Context(), "a", "Move", "n2", "node n1 is draining"))
	must(t, h.schedule(t.Context(), "d", "Explain", "", "node n1 is draining, and the project stays: no room"))
	out.until(t, "project/d waits: node n1 is draining, and the project stays: no room\n")
	must(t, h.report(t.Context(), "a", "Running", "Running", "Ready", ""))
	out.until(t, "project/a moved to n2 (1 of 4)\n")
	must(t, h.schedule(t.Context(), "c", "Move", "n2", "node n1 is draining"))
	must(t, h.report(t.Context(), "c", "", "Pulling", "Pulling", "pulling image nginx:1"))
	must(t, h.schedule(t.Context(), "b", "Move", "n2", "node n1 is draining"))
	must(t, h.report(t.Context(), "b", "Failed", "Failed", "ImageNotFound", "no nginx:1"))
	out.until(t, "project/b failed on n2: ImageNotFound")
	out.until(t, "(2 of 4)\n")
	if code := stop(); code != exitInterrupted {
		t.Errorf("interrupted, and ended with %d", code)
	}
	for _, want := range []string{
		"error: interrupted: node n1 stays draining, 2 of 4 projects to move (c, d)\n",
		"       project/c is Scheduled on n2: pulling image nginx:1\n",
		"       project/d waits: node n1 is draining, and the project stays: no room\n",
		"caractrl drain n1 watches it again, caractrl uncordon n1 ends it\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}

	again, stop := h.start(t, "drain", "n1")
	again.until(t, "node/n1 is being drained: 2 projects to move\n")
	if r := h.ctl(t.Context(), "", "delete", "project", "c", "--wait=false"); r.code != 0 {
		t.Fatalf("delete: %+v", r)
	}
	again.until(t, "project/c deleted (1 of 2)\n")
	must(t, h.schedule(t.Context(), "d", "Move", "n2", "node n1 is draining"))
	must(t, h.report(t.Context(), "d", "Running", "Running", "Ready", ""))
	again.until(t, "project/d moved to n2 (2 of 2)\n")
	must(t, h.empty(t.Context(), "n1"))
	again.until(t, "node/n1 drained\n")
	if code := stop(); code != 0 {
		t.Errorf("ended with %d\n%s", code, again)
	}
	again.until(t, "project/e has failed and stays on n1, stopped, for its logs")
}

func TestADrainOfANodeThatDoesNotAnswer(t *testing.T) {
	h := newTestServer(t)
	for _, n := range []string{"n1", "n2"} {
		must(t, h.node(t.Context(), n))
	}
	h.apply(t, "a", "nginx:1")
	must(t, h.schedule(t.Context(), "a", "Bind", "n1", ""))
	must(t, h.silent(t.Context(), "n1"))
	out, stop := h.start(t, "drain", "n1")
	out.until(t, "node/n1 does not answer: projects without data on it move when their rescheduleAfter is over")
	must(t, h.schedule(t.Context(), "a", "Move", "n2", "node n1 is lost"))
	must(t, h.report(t.Context(), "a", "Running", "Running", "Ready", ""))
	out.until(t, "project/a moved to n2 (1 of 1)")
	out.until(t, "nothing is assigned to it, but its containers may still run")
	out.until(t, "node/n1 drained")
	if code := stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

func TestADrainThatSomebodyEnds(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.apply(t, "a", "nginx:1")
	must(t, h.schedule(t.Context(), "a", "Bind", "n1", ""))
	out, _ := h.start(t, "drain", "n1")
	out.until(t, "1 project to move")
	if r := h.ctl(t.Context(), "", "uncordon", "n1"); r.code != 0 {
		t.Fatalf("uncordon: %+v", r)
	}
	out.until(t, `error: node "n1" is not draining any more: somebody ended the drain; 1 of 1 project to move (a)`)
}
