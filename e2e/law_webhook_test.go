package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const hookSecret = "hunter2-planted-hook"

// hooks are deliveries as each sort of git server sends them.
func hooks() map[string]func(h http.Header, id, body string) {
	signed := func(body string) string {
		mac := hmac.New(sha256.New, []byte(hookSecret))
		mac.Write([]byte(body))
		return hex.EncodeToString(mac.Sum(nil))
	}
	return map[string]func(h http.Header, id, body string){
		"GitHub": func(h http.Header, id, body string) {
			h.Set("X-GitHub-Event", "push")
			h.Set("X-GitHub-Delivery", id)
			h.Set("X-Hub-Signature-256", "sha256="+signed(body))
		},
		"GitLab": func(h http.Header, id, _ string) {
			h.Set("X-Gitlab-Event", "Push Hook")
			h.Set("X-Gitlab-Event-UUID", "one-for-all-hooks")
			h.Set("Idempotency-Key", id)
			h.Set("X-Gitlab-Token", hookSecret)
		},
		"Gitea": func(h http.Header, id, body string) {
			h.Set("X-Gitea-Event", "push")
			h.Set("X-Gitea-Delivery", id)
			h.Set("X-Gitea-Signature", signed(body))
		},
		"Bitbucket": func(h http.Header, id, body string) {
			h.Set("X-Event-Key", "repo:push")
			h.Set("X-Request-UUID", id)
			h.Set("X-Hub-Signature", "sha256="+signed(body))
		},
		"Generic": func(h http.Header, id, body string) {
			h.Set("X-Event", "anything")
			h.Set("X-Delivery", id)
			h.Set("X-Signature", "sha256="+signed(body))
		},
	}
}

// deliver sends a webhook as a git server does.
func (w *testCluster) deliver(source, id, body string, sign func(h http.Header, id, body string)) (status int, answer string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.URL()+"/api/v1/sources/"+source+"/webhook", strings.NewReader(body))
	w.must(err)
	sign(req.Header, id, body)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	w.must(err)
	return resp.StatusCode, string(text)
}

// hooked is a repository that is polled once in an hour, so that only deliveries bring news.
func (w *testCluster) hooked(source, provider string) *origin {
	w.Helper()
	o := w.origin(source, only("web:1", source))
	w.apply("apiVersion: caravanserai/v1\nkind: Source\nmetadata:\n  name: " + source + "\nspec:\n" +
		"  git: {url: " + o.server.RepoURL(source) + ", ref: {branch: main}}\n  interval: 1h\n" +
		"  webhook: {provider: " + provider + ", secretRef: hook}\n")
	w.untilSource(source, "is polled once in an hour", func(s *carav1.Source) bool {
		p := s.GetStatus().GetPoll()
		return p.GetNextTime().AsTime().Sub(p.GetLastTime().AsTime()) > 30*time.Minute
	})
	return o
}

// Webhooks are a hint: signed as each provider signs, and then the source is probed at once.
func TestLawWebhooks(t *testing.T) {
	w := law(t)
	w.secret("hook", map[string]string{"secret": hookSecret})
	for provider, sign := range hooks() {
		w.sub(provider, func(w *testCluster) {
			source := strings.ToLower(provider)
			o := w.hooked(source, provider)
			polled := w.poll(source)
			forged := func(h http.Header, id, _ string) {
				sign(h, id, "another body")
				h.Set("X-Gitlab-Token", "a guess")
			}
			if status, _ := w.deliver(source, "0", "{}", forged); status != http.StatusUnauthorized {
				w.Errorf("a forged delivery is answered %d", status)
			}
			if again := w.poll(source); !again.Equal(polled) {
				w.Errorf("a forged delivery made it poll at %s, last %s", again, polled)
			}
			o.Write(source+".yaml", declared(source, "web:2"))
			o.Commit("Change")
			o.Push()
			sent := time.Now()
			// The body may say what it likes: which revision there is, the probe finds out.
			body := `{"ref":"refs/heads/other","after":"` + strings.Repeat("a", 40) + `"}`
			if status, answer := w.deliver(source, "1", body, sign); status != http.StatusAccepted || answer != "Accepted\n" {
				w.Errorf("%d %s", status, answer)
			}
			s := w.untilSource(source, "is polled", func(s *carav1.Source) bool {
				return s.GetStatus().GetPoll().GetLastTime().AsTime().After(sent)
			})
			w.Logf("from delivery to the end of the probe: %s", s.GetStatus().GetPoll().GetLastTime().AsTime().Sub(sent).Round(time.Millisecond))
			w.asks(source, "web:2")
			if _, answer := w.deliver(source, "1", body, sign); answer != "Duplicate\n" {
				w.Errorf("the same delivery again: %s", answer)
			}
			if d := s.GetStatus().GetPoll().GetLastDelivery(); d.GetId() != "1" || d.GetResult() != "Accepted" {
				w.Errorf("last delivery %v", d)
			}
		})
	}
	w.ctl("", "suspend", "github")
	if status, answer := w.deliver("github", "2", "{}", hooks()["GitHub"]); status != http.StatusAccepted || answer != "Ignored: the source is suspended\n" {
		t.Errorf("%d %s", status, answer)
	}
	if status, _ := w.deliver("gitlab", "3", strings.Repeat("x", 1<<20+1), hooks()["GitLab"]); status < 400 || status >= 500 {
		t.Errorf("a delivery of more than 1 MiB is answered %d", status)
	}
	// The answer is the one for a wrong signature: a stranger does not learn which sources there are.
	if status, _ := w.deliver("nobody", "4", "{}", hooks()["GitHub"]); status != http.StatusUnauthorized {
		t.Errorf("a delivery for a source that does not exist is answered %d", status)
	}
	w.nowhere(hookSecret)
}

// A storm of pushes and deliveries ends at the last commit, with a bounded number of fetches.
func TestLawStormOfPushesAndDeliveries(t *testing.T) {
	w := law(t)
	w.secret("hook", map[string]string{"secret": hookSecret})
	o := w.hooked("platform", "GitHub")
	sequence := func() int64 {
		return w.untilSource("platform", "is there", func(*carav1.Source) bool { return true }).GetStatus().GetSnapshot().GetSequence()
	}
	before := sequence()
	began := time.Now()
	storm := often(200, 60)
	for i := range storm {
		o.Write("platform.yaml", declared("platform", fmt.Sprintf("web:%d", i+1)))
		o.Commit("Change")
		o.Push()
		if status, answer := w.deliver("platform", fmt.Sprint(i), "{}", hooks()["GitHub"]); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, answer)
		}
	}
	took := time.Since(began)
	w.asks("platform", fmt.Sprint("web:", storm))
	fetches := sequence() - before
	t.Logf("%d fetches of %d pushes and deliveries within %s", fetches, storm, took.Round(time.Millisecond))
	if most := int64(took/(4*time.Second)) + 7; fetches > most {
		t.Errorf("%d fetches within %s, want at most %d", fetches, took, most)
	}
}

// nowhere wants a text in no log, event, status or metric.
func (w *testCluster) nowhere(planted string) {
	w.Helper()
	for _, args := range [][]string{
		{"get", "sources", "-o", "json"}, {"get", "projects", "-o", "json"}, {"get", "events", "-o", "json"}, {"get", "secrets", "-o", "json"},
	} {
		r := w.ctl("", args...)
		if r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, planted) {
			w.Errorf("caractrl %s: exit code %d, or it shows %q", strings.Join(args, " "), r.Code, planted)
		}
	}
	if text := w.Server.Tail(100_000); strings.Contains(text, planted) {
		w.Errorf("the server's log shows %q", planted)
	}
	token, err := w.Token()
	w.must(err)
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.URL()+"/metrics", nil)
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	metrics, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	w.must(err)
	if resp.StatusCode != http.StatusOK || strings.Contains(string(metrics), planted) {
		w.Errorf("/metrics answers %d, or shows %q", resp.StatusCode, planted)
	}
}

// Credentials are in the request and nowhere else, also where the git server throws them back.
func TestLawNoCredentialIsShown(t *testing.T) {
	const planted = "hunter2-planted"
	w := law(t)
	o := w.origin("platform", only("web:1", "web"))
	o.server.Login("ada", planted)
	w.secret("git", map[string]string{"username": "ada", "password": planted})
	w.source("platform", "url: "+o.server.RepoURL("platform")+", insecure: true, secretRef: git")
	w.well("platform", api.CondFetchFailed)
	o.Write("web.yaml", declared("web", "web:2"))
	o.save("Change")
	w.asks("web", "web:2")

	echo := mirror(t, planted)
	w.source("echo", "url: "+echo+"/app.git, insecure: true, secretRef: git")
	w.source("redirect", "url: "+echo+"/redirect.git, insecure: true, secretRef: git")
	w.source("words", "url: "+echo+"/words.git, insecure: true, secretRef: git")
	for _, name := range []string{"echo", "redirect", "words"} {
		w.untilSource(name, "cannot be read", func(s *carav1.Source) bool {
			return api.IsTrue(s.GetStatus().GetConditions(), api.CondFetchFailed)
		})
	}
	o.server.Login("ada", "another")
	w.untilSource("platform", "is refused", func(s *carav1.Source) bool {
		return condition(s.GetStatus().GetConditions(), api.CondFetchFailed).GetReason() == "AuthFailed"
	})
	r := w.ctl("apiVersion: caravanserai/v1\nkind: Source\nmetadata: {name: inline}\nspec:\n  git: {url: \"https://ada:"+planted+"@example.com/a.git\"}\n",
		"apply", "-f", "-")
	if strings.Contains(r.Stdout+r.Stderr, planted) {
		t.Errorf("caractrl apply: %+v", r)
	}
	if r.Code == 0 {
		w.deleteSource("inline")
	}
	w.nowhere(planted)
	for _, name := range []string{"platform", "echo", "redirect", "words"} {
		if r := w.ctl("", "describe", "source", name); r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, planted) {
			t.Errorf("caractrl describe: %+v", r)
		}
	}
}
