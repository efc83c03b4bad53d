package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testoidc"
)

// person is somebody with an account at the provider of a server, and no token.
type person struct {
	*testing.T
	h    *testServer
	p    *testoidc.Provider
	file string // of contexts
	said string // what all commands have shown
}

func newPerson(t *testing.T, up bool) *person {
	t.Helper()
	testneed.NotShort(t)
	addr, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := testoidc.New(t, "http://"+addr, false)
	if up {
		p.Up()
	}
	h, err := openAt(t.TempDir(), addr, &oidc.Config{
		Issuer: p.Issuer, ClientID: testoidc.ClientID, Grants: []oidc.Grant{{Group: "dev", Role: api.RoleDeployer, Prefix: "pr-"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return &person{T: t, h: h, p: p, file: filepath.Join(t.TempDir(), "cara", "contexts.json")}
}

// running is a command that runs.
type running struct {
	out, err shown
	done     chan int
}

func (p *person) start(ctx context.Context, args ...string) *running {
	r := &running{done: make(chan int, 1)}
	a := &app{Streams: Streams{In: strings.NewReader(""), Out: &r.out, Err: &r.err}, version: "v1", now: p.h.clock.now}
	go func() { r.done <- run(ctx, append([]string{"--contexts-file", p.file}, args...), a) }()
	return r
}

// ends waits for the end of a command, which must have this exit code and say this.
func (p *person) ends(r *running, code int, says string) {
	p.Helper()
	got := <-r.done
	said := r.out.String() + r.err.String()
	p.said += said
	if got != code || !regexp.MustCompile(says).MatchString(said) {
		p.Fatalf("exit code %d, want %d and %q:\n%s", got, code, says, said)
	}
}

func (p *person) ctl(code int, says string, args ...string) {
	p.Helper()
	p.ends(p.start(p.Context(), args...), code, says)
}

// shows waits until a command that runs has shown something, and returns its first group.
func (p *person) shows(r *running, pattern string) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 2*time.Minute)
	defer cancel()
	var m []string
	if err := testcluster.WaitFor(ctx, "caractrl shows "+pattern, func(context.Context) error {
		ended := len(r.done) > 0
		m = regexp.MustCompile(pattern).FindStringSubmatch(r.err.String())
		switch {
		case m != nil:
			return nil
		case ended:
			return testcluster.Fatal(errors.New("it has ended: " + r.err.String()))
		}
		return errors.New("it shows " + r.err.String())
	}); err != nil {
		p.Fatal(err)
	}
	return m[1]
}

const (
	addressShown = `(http://\S+/ui/login/caractrl\?\S+)\n`
	codeShown    = `enter the code: +(\S+)\n`
)

// login logs in with the browser.
func (p *person) login(args ...string) (r *running, page string) {
	p.Helper()
	r = p.start(p.Context(), append([]string{"login", "--no-browser"}, args...)...)
	return r, p.p.Browse(p.shows(r, addressShown))
}

func (p *person) context() access.Context {
	p.Helper()
	all, err := access.Load(p.file)
	if err != nil {
		p.Fatal(err)
	}
	return all.Contexts["127.0.0.1"]
}

// sessions is how many sessions the server has.
func (p *person) sessions() int {
	p.Helper()
	return strings.Count(p.h.ctl(p.Context(), "", "get", "sessions").out, api.SessionCaractrl)
}

// silent checks that a token is shown nowhere.
func (p *person) silent(tokens ...string) {
	p.Helper()
	for _, token := range tokens {
		if token == "" || strings.Contains(p.said+p.h.log.String(), token) {
			p.Errorf("the token %.12s... is shown or in the log", token)
		}
	}
}

// A person logs in through a browser, works, and logs out. Only the file of contexts has the token, and only the person reads it.
func TestLoginInBrowser(t *testing.T) {
	p := newPerson(t, true)
	r, page := p.login("--server", p.h.url)
	p.ends(r, 0, `(?m)^logged in to http://127\S+ as ada@example.com with the role deployer; context/127\.0\.0\.1 is in use$`)
	if !strings.Contains(page, "Go back to the terminal") {
		t.Errorf("the last page: %s", page)
	}
	first := p.context()
	if info, err := os.Stat(p.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of contexts: %v, %v; want 0600", info.Mode(), err)
	}
	p.ctl(0, `(?s)^name:   ada@example.com\nrole:   deployer\nnames:  pr-\*\nuntil:  2\S+, renewed .*server: 127.0.0.1 \(http://`, "whoami")
	p.ctl(0, `"role": "deployer"`, "whoami", "-o", "json")
	p.ctl(0, `(?m)^namePrefixes:\n *- "?pr-"?$`, "whoami", "-o", "yaml")
	p.ctl(0, `no projects found`, "get", "projects")

	// A login replaces the one before, which ends.
	r, _ = p.login()
	p.ends(r, 0, `logged in`)
	second := p.context()
	if second.Token == first.Token || p.sessions() != 1 {
		t.Errorf("after a second login there are %d sessions, want the new one", p.sessions())
	}

	p.ctl(0, `(?m)^logged out of http://`, "logout")
	if c := p.context(); c.Token != "" || c.Server != p.h.url || p.sessions() != 0 {
		t.Errorf("after the logout: %+v, %d sessions; want the server alone", c, p.sessions())
	}
	p.ctl(1, `error: you are logged out of http://\S+: log in with caractrl login\n`, "get", "projects")
	p.ctl(0, `already logged out`, "logout")
	stolen := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(stolen, []byte(second.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	p.ctl(1, `the token is not valid here`, "get", "projects", "--server", p.h.url, "--token-file", stolen)
	p.silent(first.Token, second.Token)
}

// The login of a device is done on another one.
func TestLoginOnDevice(t *testing.T) {
	p := newPerson(t, true)
	r := p.start(t.Context(), "login", "--device", "--server", p.h.url)
	p.p.Approve(p.shows(r, codeShown))
	p.ends(r, 0, `logged in to http://\S+ as ada@example.com`)
	p.ctl(0, `role:   deployer`, "whoami")

	// A session that an administrator ends, and one whose time is over.
	sessions := p.h.ctl(t.Context(), "", "get", "sessions", "-o", "name")
	if got := p.h.ctl(t.Context(), "", append([]string{"delete"}, strings.Fields(sessions.out)...)...); got.code != 0 {
		t.Fatal(got)
	}
	p.ctl(1, `error: your login has ended: log in again with caractrl login \(the server says: `, "get", "projects")
	r, _ = p.login()
	p.ends(r, 0, `logged in`)
	p.ctl(0, `no projects`, "get", "projects")
	p.h.clock.add(8 * 24 * time.Hour)
	p.ctl(1, `your login has ended: log in again with caractrl login --context 127.0.0.1 `, "get", "projects", "--context", "127.0.0.1")
	p.ctl(0, `logged out of`, "logout") // it has ended before
}

// What the provider or the person refuses is said in words, in the terminal and in the browser, and nothing is stored.
func TestLoginRefused(t *testing.T) {
	p := newPerson(t, true)
	r := p.start(t.Context(), "login", "--device", "--server", p.h.url)
	p.p.Deny(p.shows(r, codeShown))
	p.ends(r, 1, `error: the OpenID provider did not log you in: access_denied`)
	p.p.Set(testoidc.Control{Groups: []string{"sales"}, Seconds: 3600})
	r, page := p.login("--server", p.h.url)
	p.ends(r, 1, `error: you are not logged in: .*has no role here`)
	if !strings.Contains(page, "You are not logged in") || !strings.Contains(page, "has no role here") {
		t.Errorf("the last page: %s", page)
	}
	for _, flag := range []string{"--device", "--no-browser"} {
		ctx, cancel := context.WithCancel(t.Context())
		r = p.start(ctx, "login", flag, "--server", p.h.url)
		p.shows(r, `(Waiting until)`)
		cancel() // Ctrl-C
		p.ends(r, exitInterrupted, `error: the login was cancelled: you are not logged in\n`)
	}
	if _, err := os.Stat(p.file); !errors.Is(err, fs.ErrNotExist) || p.sessions() != 0 {
		t.Errorf("%d sessions, and the file of contexts: %v; want none", p.sessions(), err)
	}
}

// Without the provider nobody logs in. Without the server a logout still removes the token.
func TestLoginWithoutAnAnswer(t *testing.T) {
	p := newPerson(t, false)
	r, _ := p.login("--server", p.h.url)
	p.ends(r, 1, `error: you are not logged in: the OpenID provider .* cannot be used now`)
	p.ctl(1, `error: the OpenID provider .* cannot be used now`, "login", "--device", "--server", p.h.url)
	p.p.Up()
	p.h.clock.add(time.Minute) // the server asks the provider again
	r = p.start(t.Context(), "login", "--device", "--server", p.h.url)
	p.p.Approve(p.shows(r, codeShown))
	p.ends(r, 0, `logged in`)
	token := p.context().Token
	if err := p.h.stop(); err != nil {
		t.Fatal(err)
	}
	p.ctl(1, `error: the token is removed from this machine, but http://\S+ did not end the session \(.*connection refused`, "logout")
	if c := p.context(); c.Token != "" || c.Server == "" {
		t.Errorf("after the logout: %+v, want the server alone", c)
	}
	p.silent(token)
}
