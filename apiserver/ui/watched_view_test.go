package ui_test

import (
	"io"
	"net/http"
	"regexp"
	"testing"
)

// TestViewsOfARole: people with the same role see the same in the views that streams share by role. In the others, what is offered
// depends on the names that a person may change.
func TestViewsOfARole(t *testing.T) {
	s := newSite(t)
	s.put(t, example()...)
	one := s.login(t, s.newToken(t, "one", "deployer", ""))
	other := s.login(t, s.newToken(t, "other", "deployer", "nothing-"))
	id := regexp.MustCompile(`data-id="([^"]+)"`)
	see := func(c *http.Client, path string) string {
		resp := s.get(t, c, "/ui/"+path, nil)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		found := id.FindSubmatch(body)
		if found == nil {
			t.Fatalf("/ui/%s is no view: %s", path, resp.Status)
		}
		return string(found[1])
	}
	for path, same := range map[string]bool{
		"": true, "projects": true, "projects?q=shop": true, "sources": true, "nodes": true, "volumes": true, "secrets": true, "servers": true, "search?q=shop": true,
		"projects/shop": false, "previews": false,
	} {
		if got := see(one, path) == see(other, path); got != same {
			t.Errorf("/ui/%s: the same for both is %t, want %t", path, got, same)
		}
	}
}
