package testbrowser_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// losing answers with what the visitor's cookie says. It loses the first connections: Chromium repeats a request by itself once
// or twice.
func losing(w http.ResponseWriter, r *http.Request, lost *atomic.Int32) {
	if lost.Add(1) <= 3 {
		panic(http.ErrAbortHandler)
	}
	who := "a stranger"
	if _, err := r.Cookie("who"); err == nil {
		who = "known by " + r.Method
	}
	_, _ = w.Write([]byte(`<p id="who">` + who + "</p>"))
}

// TestALostClickIsRepeated: a click whose connection was lost is repeated with the cookies of the page, like a person's reload.
func TestALostClickIsRepeated(t *testing.T) {
	var linked, sent atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /first", func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "who", Value: "me", Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		_, _ = w.Write([]byte(`<a href="/second">on</a><form action="/third" method="post"><button>send</button></form>`))
	})
	mux.HandleFunc("GET /second", func(w http.ResponseWriter, r *http.Request) { losing(w, r, &linked) })
	mux.HandleFunc("POST /third", func(w http.ResponseWriter, r *http.Request) { losing(w, r, &sent) })
	server := httptest.NewServer(mux)
	defer server.Close()
	tab, err := testbrowser.Open(t).Tab()
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	for element, want := range map[string]string{"a": "known by GET", "button": "known by POST"} {
		for _, step := range []func() error{
			func() error { return tab.Go(server.URL + "/first") },
			func() error { return tab.Click(element) },
			func() error { return tab.Until(`document.querySelector("#who")`) },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		var who string
		if err := tab.Eval("document.body.innerText", &who); err != nil || who != want {
			t.Errorf("after a click on %s the page shows %q (%v), want %q", element, who, err, want)
		}
	}
}
