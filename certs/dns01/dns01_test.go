package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/caravanserai/cara/internal/test/testdns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func file(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// wants fails the test unless an error has the text; without a text, unless there is no error.
func wants(t *testing.T, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q", err, text)
	}
}

var record = Record{"_acme-challenge.app.test", "the-value"}

func TestRFC2136(t *testing.T) {
	s := testdns.Start(t)
	good := RFC2136{Server: s.Addr, KeyName: "Cara.test", Algorithm: testdns.Algorithm, SecretFile: file(t, testdns.Secret+"\n", 0o600)}
	wants(t, good.Validate(), "")
	other := Record{record.Name, "another-value"}
	for _, r := range []Record{record, other, record} {
		wants(t, good.Present(t.Context(), r), "")
	}
	if got := s.TXT(record.Name); len(got) != 2 || !slices.Contains(got, record.Value) || !slices.Contains(got, other.Value) {
		t.Errorf("the server has %q", got)
	}
	for range 2 {
		wants(t, good.CleanUp(t.Context(), record), "")
	}
	if got := s.TXT(record.Name); !slices.Equal(got, []string{other.Value}) {
		t.Errorf("after the clean-up the server has %q", got)
	}

	other.Name = "_acme-challenge.app.example"
	wants(t, good.Present(t.Context(), other), "has no zone for _acme-challenge.app.example. (REFUSED): name the primary server of the zone")
	wants(t, good.Present(t.Context(), Record{"app.test", "x"}), "REFUSED: allow the TSIG key Cara.test to update TXT records below _acme-challenge in this zone")
	for rcode, want := range map[int]string{
		dns.RcodeRefused:        "refused to update the zone test. with REFUSED: allow the TSIG key",
		dns.RcodeNotAuth:        "NOTAUTH: check the TSIG key",
		dns.RcodeNotImplemented: "NOTIMP: name the primary server",
		dns.RcodeServerFailure:  "SERVFAIL: see the log of the DNS server",
	} {
		s.Refuse(rcode)
		wants(t, good.Present(t.Context(), record), want)
	}
	s.Refuse(0)
	for name, c := range map[string]struct {
		change func(*RFC2136)
		want   string
	}{
		"another secret":    {func(p *RFC2136) { p.SecretFile = file(t, "b3RoZXI=", 0o600) }, "BADSIG: the server has another secret for the TSIG key Cara.test"},
		"another key":       {func(p *RFC2136) { p.KeyName = "other.test" }, "BADKEY: the server does not know the TSIG key other.test with the algorithm hmac-sha256"},
		"another algorithm": {func(p *RFC2136) { p.Algorithm = "hmac-sha512" }, "BADKEY"},
		"no server":         {func(p *RFC2136) { p.Server = closed(t) }, "has not told the zone of _acme-challenge.app.test.: "},
		"the file is gone":  {func(p *RFC2136) { p.SecretFile += ".x" }, "no such file"},
	} {
		p := good
		c.change(&p)
		err := p.Present(t.Context(), record)
		if wants(t, err, c.want); err != nil && strings.Contains(err.Error(), testdns.Secret) {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
	}
	if got := s.TXT(record.Name); len(got) != 1 {
		t.Errorf("a refused update has changed the zone: %q", got)
	}
}

// TestUnsigned: an answer that nobody signed counts as no answer.
func TestUnsigned(t *testing.T) {
	s := testdns.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	d := &dns.Server{Listener: l, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		_ = w.WriteMsg(m.SetReply(r))
	})}
	udp, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Skip(err)
	}
	u := &dns.Server{PacketConn: udp, Handler: s}
	for _, d := range []*dns.Server{d, u} {
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- d.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(d.Shutdown(), <-ended); err != nil {
				t.Error(err)
			}
		})
	}
	p := RFC2136{Server: l.Addr().String(), KeyName: testdns.KeyName, Algorithm: testdns.Algorithm, SecretFile: file(t, testdns.Secret, 0o600)}
	wants(t, p.Present(t.Context(), record), "without a signature")
}

// closed returns an address that nobody listens on.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().String()
}

func TestValidate(t *testing.T) {
	secret := file(t, testdns.Secret, 0o600)
	for name, c := range map[string]struct {
		p    Provider
		want string
	}{
		"no port":           {&RFC2136{Server: "ns1", KeyName: "k", SecretFile: secret}, "want HOST:PORT"},
		"no key":            {&RFC2136{Server: "ns1:53", SecretFile: secret}, "the name of the TSIG key"},
		"no file":           {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: secret + ".x"}, "no such file"},
		"no base64":         {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: file(t, "key {", 0o600)}, "in base64"},
		"for all eyes":      {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: file(t, testdns.Secret, 0o644)}, "chmod o-rwx"},
		"two lines":         {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: file(t, "a\nb", 0o600)}, "must have one line"},
		"empty":             {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: file(t, "", 0o600)}, "must have one line"},
		"too long":          {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: file(t, strings.Repeat("a", 5000), 0o600)}, "at most 4096 bytes"},
		"command":           {&Exec{Path: file(t, "#!/bin/sh\n", 0o700)}, ""},
		"relative":          {&Exec{Path: "hook"}, "absolute path"},
		"no command":        {&Exec{Path: secret + ".x"}, "no such file"},
		"no program":        {&Exec{Path: secret}, "chmod +x"},
		"a folder":          {&Exec{Path: t.TempDir()}, "cannot be executed"},
		"https":             {&HTTP{URL: "https://dns.example/hook"}, ""},
		"local http":        {&HTTP{URL: "http://127.0.0.1:1/", TokenFile: secret}, ""},
		"http":              {&HTTP{URL: "http://dns.example/hook"}, "http is only for this machine"},
		"password":          {&HTTP{URL: "https://u:hunter2@dns.example/"}, "has a password"},
		"no URL":            {&HTTP{URL: "dns.example"}, "want https://HOST/PATH"},
		"no token":          {&HTTP{URL: "https://dns.example/", TokenFile: secret + ".x"}, "no such file"},
		"a broken URL":      {&HTTP{URL: "https://u:hunter2@dns.example/%zz"}, "want https://HOST/PATH"},
		"another algorithm": {&RFC2136{Server: "ns1:53", KeyName: "k", SecretFile: secret, Algorithm: "hmac-md5"}, "want one of hmac-sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, ok := c.p.(*RFC2136); ok && p.Algorithm == "" {
				p.Algorithm = Algorithms()[0]
			}
			err := c.p.Validate()
			if wants(t, err, c.want); err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

func TestExec(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	run := func(script string) error {
		p := &Exec{Path: file(t, "#!/bin/sh\n"+script, 0o700), Timeout: time.Minute}
		return p.Present(t.Context(), record)
	}
	wants(t, run(`echo "$@" >`+log), "")
	if got, err := os.ReadFile(log); err != nil || string(got) != "present _acme-challenge.app.test the-value\n" {
		t.Errorf("the arguments are %q, %v", got, err)
	}
	p := &Exec{Path: file(t, "#!/bin/sh\necho \"$@\" >"+log, 0o700)}
	wants(t, p.CleanUp(t.Context(), record), "")
	if got, err := os.ReadFile(log); err != nil || string(got) != "cleanup _acme-challenge.app.test the-value\n" {
		t.Errorf("the arguments are %q, %v", got, err)
	}
	err := run("echo hunter2; echo first >&2; printf 'no\\033[31m rights\\n\\n' >&2; exit 3")
	if wants(t, err, "failed (exit status 3): no rights"); strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "first") {
		t.Errorf("the error has more than the last line: %v", err)
	}
	err = run("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1")
	if wants(t, err, "xxx"); len(err.Error()) > 2*hookShown {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	p = &Exec{Path: file(t, "#!/bin/sh\nsleep 600 & echo $! >"+log+"; wait", 0o700), Timeout: time.Second}
	wants(t, p.Present(t.Context(), record), "has not ended within 1s")
	pid, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command's child has ended", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("not true: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestHTTP(t *testing.T) {
	var got atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		err := json.NewDecoder(r.Body).Decode(&body)
		got.Store(fmt.Sprint(r.Method, r.Header.Get("Authorization"), body, err))
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
		case "/error":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"error": "no rights\u001b[31m %s"}`, strings.Repeat("x", 1000))
		case "/text":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, "hunter2")
		case "/gone":
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	client := s.Client()
	defer client.CloseIdleConnections()
	p := &HTTP{URL: s.URL + "/good", TokenFile: file(t, "hunter2\n", 0o600), Client: client}
	wants(t, p.Validate(), "")
	wants(t, p.Present(t.Context(), record), "")
	if want := "POSTBearer hunter2map[action:present name:_acme-challenge.app.test value:the-value] <nil>"; got.Load() != want {
		t.Errorf("the request is %q, want %q", got.Load(), want)
	}
	wants(t, p.CleanUp(t.Context(), record), "")
	if !strings.Contains(got.Load().(string), "action:cleanup") {
		t.Errorf("the request is %q", got.Load())
	}
	for path, want := range map[string]string{
		"/moved": "answered present for _acme-challenge.app.test with the status 307",
		"/error": "with the status 403: no rights xxx",
		"/text":  "with the status 500",
		"/gone":  "has not answered present for _acme-challenge.app.test: EOF",
	} {
		p.URL = s.URL + path + "?key=hunter2"
		err := p.Present(t.Context(), record)
		if wants(t, err, want); err != nil && (strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 2*hookShown) {
			t.Errorf("the error has a secret or is too long: %v", err)
		}
	}
}

func TestChecker(t *testing.T) {
	s := testdns.Start(t)
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Addr)
	}}
	for name, c := range map[string]*Checker{
		"named servers":   {Servers: []string{s.Addr}},
		"zone's servers":  {Resolver: resolver, port: port},
		"unused resolver": {Servers: []string{s.Addr, s.Addr}, Resolver: &net.Resolver{}},
	} {
		t.Run(name, func(t *testing.T) {
			c.Every = 10 * time.Millisecond
			s.Hide(false)
			s.Set(record.Name, "another-value", true)
			s.Set(record.Name, record.Value, false)
			c.Limit = 2 * time.Second
			wants(t, c.Wait(t.Context(), record), "the TXT record _acme-challenge.app.test was not found within 2s: the DNS server "+s.Addr+" does not have it yet (NOERROR)")
			c.Limit = 2 * time.Minute
			s.Set(record.Name, record.Value, true)
			s.Hide(true)
			done := make(chan error, 1)
			go func() { done <- c.Wait(t.Context(), record) }()
			select {
			case err := <-done:
				t.Errorf("it has not waited: %v", err)
			case <-time.After(100 * time.Millisecond):
				s.Hide(false)
				wants(t, <-done, "")
			}
		})
	}
	c := &Checker{Resolver: resolver, Limit: 300 * time.Millisecond, Every: 10 * time.Millisecond, port: port}
	wants(t, c.Wait(t.Context(), Record{"_acme-challenge.app.example", "x"}), "cannot be looked up")
	c = &Checker{Servers: []string{closed(t)}, Limit: 300 * time.Millisecond, Every: 10 * time.Millisecond}
	wants(t, c.Wait(t.Context(), record), "has not answered")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, c.Wait(ctx, record), "context canceled")
}
