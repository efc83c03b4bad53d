package ui_test

import (
	"testing"

	"github.com/caravanserai/cara/internal/test/testaxe"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// No view has a barrier that axe-core knows, in either theme: roles, labels, contrast, headings.
func TestNoBarriers(t *testing.T) {
	b := testbrowser.Open(t)
	axe := testaxe.Script(t)
	s := newSite(t)
	s.put(t, example()...)
	tab := s.tab(t, b, s.token)
	check := func(path string) {
		t.Helper()
		for _, dark := range []bool{false, true} {
			_, err := tab.Picture(1280, 900, dark)
			must(t, err)
			found, err := testaxe.Barriers(tab, axe)
			must(t, err)
			for _, barrier := range found {
				t.Errorf("/ui/%s, dark %v: %s", path, dark, barrier)
			}
		}
	}
	for _, path := range everyView() {
		must(t, tab.Go(s.url+"/ui/"+path), tab.Until("document.querySelector('h1') && document.readyState === 'complete'"))
		check(path)
	}
	must(t, tab.Press("/", false), tab.Until("document.getElementById('search').open"))
	check("the search")
	must(t, tab.Go(s.url+"/ui/projects"), tab.Eval(`document.querySelector(".who").requestSubmit()`, nil), tab.Until(`location.pathname === "/ui/login"`))
	check("login")
}

// The keyboard alone leads through an action.
func TestKeyboardAlone(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"), project("shop"))
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects/shop"))
	reach := func(selector string) {
		t.Helper()
		for range 60 {
			var there bool
			must(t, tab.Eval(`document.activeElement.matches("`+selector+`")`, &there))
			if there {
				return
			}
			must(t, tab.Keys("\t"))
		}
		t.Fatalf("the tabulator key does not lead to %s", selector)
	}
	reach("a[href='/ui/do/restart/shop']")
	must(t, tab.Keys("\r"), tab.Shows("h1", "Restart"))
	reach("#f-service")
	reach("main button.main")
	must(t, tab.Keys("\r"), tab.Shows(".done", "restart was requested"))
	if s.get1(t, "shop").GetStatus().GetRestartToken() == "" {
		t.Error("nothing was restarted")
	}
}
