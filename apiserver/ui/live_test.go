package ui_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// A change appears in an open document, which is never loaded again: not for the change, and not when the server restarts.
func TestChangesAppear(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"), project("blog"))
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects"), tab.Eval(`window.same = true`, nil), tab.Shows("#p-blog", "Running"))

	s.put(t, project("shop"), failed("blog", "CrashLoop", "it exits"))
	must(t, tab.Shows("#p-shop", "Running"), tab.Shows("#p-blog", "Failed"), tab.Shows("#p-blog", "CrashLoop"), tab.Until("window.same"))

	s.stop()
	must(t, tab.Shows("#link", "connection is lost"))
	s.start(t)
	must(t, tab.Until(`document.querySelector("#link").textContent === ""`))
	s.put(t, project("cart"))
	must(t, tab.Shows("#p-cart", "Running"), tab.Until("window.same"))
}

// The overview and the project say what is wrong and why, and lead to the logs.
func TestFailedProjectShowsWhy(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"), project("shop"))
	tab := s.tab(t, b, s.token)
	must(t, tab.Shows("main", "Nothing is wrong"))
	s.put(t, failed("shop", "CrashLoop", "service app exited with code 1\nlast line: no database"), event("0001-a", "shop", "Failed", "no database"))
	must(t, tab.Shows("#m-Project-shop-CrashLoop", "last line: no database"), tab.Shows("#e-0001-a", "no database"))
	must(t, tab.Click("#m-Project-shop-CrashLoop a"), tab.Shows("h1", "shop"), tab.Shows(".note.bad", "last line: no database"))
	// Elsewhere a person opens the rest of a long message, and it stays open.
	must(t, tab.Until(`!document.querySelector("#c-Ready details").open`), tab.Click("#c-Ready summary"), tab.Until("document.getElementById('main').dataset.open"))
	s.put(t, event("0002-b", "shop", "Changed", "something else"))
	must(t, tab.Shows("ol.steps", "something else"), tab.Until(`document.querySelector("#c-Ready details").open`))
	must(t, tab.Click("#s-app a"), tab.Shows("h1", "Logs of"), tab.Shows("#log-note", "node n1 is not connected"))
	must(t, tab.Go(s.url+"/ui/projects/nosuch"), tab.Shows("[role=alert]", "nosuch"))
}

// When the token is revoked, the open page leads to the login.
func TestTokenRevoked(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"))
	tab := s.tab(t, b, s.newToken(t, "ada", api.RoleViewer, ""))
	must(t, tab.Go(s.url+"/ui/nodes"), tab.Shows("#n-n1", "n1"), tab.Until("document.getElementById('main').dataset.open"))
	_, err := carav1.NewTokenServiceClient(s.conn(t, s.token)).DeleteToken(t.Context(), &carav1.DeleteRequest{Name: "ada"})
	must(t, err, tab.Until(`location.pathname === "/ui/login" && location.search.includes("nodes")`))
}

// Logging out ends the session everywhere, and its open streams.
func TestLogout(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	tab := s.tab(t, b, s.token)
	other := s.login(t, s.token)
	var secret string
	must(t, tab.Eval("document.cookie", &secret))
	if secret != "" {
		t.Errorf("a script can read the cookie %q", secret)
	}
	must(t, tab.Click(".who button"), tab.Until(`location.pathname === "/ui/login"`), tab.Go(s.url+"/ui/"), tab.Until(`location.pathname === "/ui/login"`))
	if resp := s.get(t, other, "/ui/", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("another session of the token: %s, want 200", resp.Status)
	}
}

// A link logs in once.
func TestLoginLink(t *testing.T) {
	s := newSite(t)
	made, err := carav1.NewTokenServiceClient(s.conn(t, s.newToken(t, "ada", api.RoleViewer, ""))).CreateLogin(t.Context(), &emptypb.Empty{})
	must(t, err)
	first := client(t)
	if resp := s.get(t, first, made.GetPath(), http.Header{"Sec-Fetch-Site": {"cross-site"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a link that another page opens: %s, want 403", resp.Status)
	}
	if resp := s.get(t, first, made.GetPath(), nil); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/ui/" {
		t.Errorf("the link: %s to %q, want 303 to /ui/", resp.Status, resp.Header.Get("Location"))
	}
	if resp := s.get(t, first, "/ui/", nil); !strings.Contains(read(t, resp), "user/ada") {
		t.Error("the session of the link is not that of the token")
	}
	if resp := s.get(t, client(t), made.GetPath(), nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the link a second time: %s, want 401", resp.Status)
	}
	// The code of a link that nobody has opened is not a session.
	unused, err := carav1.NewTokenServiceClient(s.conn(t, s.token)).CreateLogin(t.Context(), &emptypb.Empty{})
	must(t, err)
	cookie := "cara-" + s.cluster(t)[:8] + "=" + strings.TrimPrefix(unused.GetPath(), "/ui/login?code=")
	if resp := s.get(t, client(t), "/ui/", http.Header{"Cookie": {cookie}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("a code as a cookie: %s, want the login", resp.Status)
	}
	// A link ends with its token, and is not for another token of that name.
	tokens := carav1.NewTokenServiceClient(s.conn(t, s.token))
	old, err := carav1.NewTokenServiceClient(s.conn(t, s.newToken(t, "eve", api.RoleViewer, ""))).CreateLogin(t.Context(), &emptypb.Empty{})
	must(t, err)
	_, err = tokens.DeleteToken(t.Context(), &carav1.DeleteRequest{Name: "eve"})
	must(t, err)
	s.newToken(t, "eve", api.RoleAdmin, "")
	if resp := s.get(t, client(t), old.GetPath(), nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the link of a token that was replaced: %s, want 401", resp.Status)
	}
}

// Texts from outside are shown as text, without what changes the direction of text or drives a terminal.
func TestHostileTexts(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	evil := `<img src=x onerror="window.evil=1"><script>window.evil=1</script>` + "\x1b[31mred\x1b]0;title\u202egnp.exe\u2066" + `"'><b>`
	p := failed("shop", "Crash<b>Loop", evil+strings.Repeat("A", 200<<10))
	p.Metadata.Labels = map[string]string{"x": evil}
	p.Metadata.Origin = &carav1.Origin{Revision: strings.Repeat("a", 40), Subject: evil, Author: evil, File: evil, Source: "git"}
	p.Spec.Services[0].Image = evil
	p.Status.Services[0].Message = evil
	p.Status.Hosts = []string{`javascript:alert(1)//`}
	src := &carav1.Source{
		Metadata: &carav1.ObjectMeta{Name: "git", Uid: "u"}, Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: evil}},
		Status: &carav1.SourceStatus{Snapshot: &carav1.Snapshot{
			Subject: evil, Author: evil, ErrorCount: 1, FileErrors: []*carav1.FileProblem{{File: evil, Line: 3, Column: 7, Path: evil, Message: evil}},
		}},
	}
	e := event("0001-a", "shop", evil, evil)
	s.put(t, node("n1"), p, src, e, &carav1.Override{Metadata: &carav1.ObjectMeta{Name: "shop"}, Actor: evil, Reason: evil, Since: timestamppb.Now()})
	tab := s.tab(t, b, s.token)
	for _, path := range []string{"", "projects", "projects/shop", "projects/shop/logs", "sources", "sources/git", "do/delete/shop", "do/override/shop", "search?q=%3Cimg+src%3Dx"} {
		must(t, tab.Go(s.url+"/ui/"+path), tab.Until("document.querySelector('h1')"))
		var found struct {
			Evil, Elements bool
			Marks          bool
			Links          int
		}
		must(t, tab.Eval(`({evil: "evil" in window, elements: document.querySelectorAll("main img, main script, main b b").length > 0,
			marks: /[\u0000-\u0008\u000b-\u001f\u202a-\u202e\u2066-\u2069]/.test(document.documentElement.innerHTML),
			links: [...document.links].filter((a) => !["http:", "https:"].includes(a.protocol)).length})`, &found))
		if found.Evil || found.Elements || found.Marks || found.Links > 0 {
			t.Errorf("/ui/%s: %+v, want nothing of it", path, found)
		}
	}
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Shows(".note.bad", "<img src=x onerror="))
}

// Ten thousand projects: the page shows a window of them, and filters where they are.
func TestManyProjects(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"))
	s.put(t, many(10_000)...)
	tab := s.tab(t, b, s.token)
	for _, path := range []string{"/ui/", "/ui/projects"} {
		must(t, tab.Go(s.url+path), tab.Until("document.readyState === 'complete' && document.querySelector('h1') && performance.getEntriesByName('first-contentful-paint').length"))
		var paint, loaded float64
		must(t, tab.Eval("performance.getEntriesByName('first-contentful-paint')[0].startTime", &paint), tab.Eval("performance.timing.loadEventEnd - performance.timing.navigationStart", &loaded))
		t.Logf("%s with 10,000 projects: first paint after %.0f ms, loaded after %.0f ms", path, paint, loaded)
	}
	must(t, tab.Shows("caption", "10000 projects"), tab.Until("document.querySelectorAll('tbody tr').length === 100"))
	must(t, tab.Eval(`window.same = true; window.took = []; window.find = (text) => { const q = document.querySelector("#q"); q.value = text; window.began = performance.now();
		q.dispatchEvent(new Event("input", {bubbles: true})) };
		new MutationObserver(() => requestAnimationFrame(() => { if (began) took.push(performance.now() - began); began = 0 })).observe(document.querySelector("main"), {childList: true, subtree: true, characterData: true})`, nil))
	for i := range 20 {
		must(t, tab.Eval(fmt.Sprintf(`find("shop-%04d t")`, 770+i), nil), tab.Shows("tbody tr a", fmt.Sprintf("shop-%04d0", 770+i)), tab.Until(fmt.Sprintf("window.took.length === %d", i+1)))
	}
	must(t, tab.Eval(`find("shop-0777 t")`, nil), tab.Shows("caption", "10 of 10000 projects"), tab.Until("location.search.includes('shop-0777') && window.same"))
	var took []float64
	must(t, tab.Eval("window.took", &took))
	slices.Sort(took)
	t.Logf("from a key in the filter to the next picture: %.0f ms in the middle, 95 %% within %.0f ms", took[len(took)/2], took[len(took)*19/20])
	must(t, tab.Click("a.chip"), tab.Shows("caption", "of 10000 projects"), tab.Until("location.search.includes('phase=')"))
	must(t, tab.Go(s.url+"/ui/projects?from=9900"), tab.Shows("#p-shop-09999", "shop-09999"), tab.Shows("caption", "rows 9901 to 10000"), tab.Click("a[rel=prev]"), tab.Shows("#p-shop-09899", "shop-09899"))
	t.Logf("scripts: %.0f bytes", tab.ScriptBytes())
	if n := tab.ScriptBytes(); n == 0 || n > 150_000 {
		t.Errorf("%.0f bytes of scripts, want at most 150,000", n)
	}
}

// The search finds objects of all kinds, by keyboard alone.
func TestSearchByKeyboard(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	p := project("shop")
	p.Status.Hosts = []string{"www.shop.example"}
	s.put(t, node("n1"), p, project("blog"))
	tab := s.tab(t, b, s.token)
	must(t, tab.Press("k", true), tab.Until("document.querySelector('#search').open"), tab.Type("#search-q", "\x1b"), tab.Until("!document.querySelector('#search').open"))
	must(t, tab.Press("/", false), tab.Until("document.querySelector('#search').open"), tab.Type("#search-q", "www.sh"), tab.Shows("#search-found a", "shop"))
	must(t, tab.Type("#search-q", "\r"), tab.Until(`location.pathname === "/ui/projects/shop"`), tab.Shows("h1", "shop"))
	must(t, tab.Go(s.url+"/ui/search?q=n1"), tab.Shows(".found", "Node"))
	must(t, tab.Go(s.url+"/ui/search?q=v0"), tab.Shows(".found", "Server"), tab.Click(".found a"), tab.Shows("h1", "Servers"), tab.Shows("tbody tr", "v0"))
}
