package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// maxReason limits a reason that the browser brings, in bytes.
	maxReason = 300
	// The browser sends short requests from this machine.
	headerTime, maxHeader = 10 * time.Second, 32 << 10
	// answerTime limits how long the browser may take to read the last answer.
	answerTime = 2 * time.Second
)

// brought is what the browser brings to caractrl: a code, or the reason why there is none.
type brought struct{ code, reason string }

// InBrowser sends the person to the page of the server, which sends the browser back to a port of this machine with a code. The
// state says that the code belongs to this login, and only this process has the secret that the code is good with.
func (t Terminal) InBrowser(ctx context.Context) (*carav1.FinishLoginResponse, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w; caractrl login --device needs no browser on this machine", err)
	}
	ctx, cancel := t.limited(ctx)
	defer cancel()
	state, verifier, back := rand.Text(), rand.Text()+rand.Text(), make(chan brought, 1)
	hs := &http.Server{ReadHeaderTimeout: headerTime, MaxHeaderBytes: maxHeader, Handler: receive(state, back)}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		_ = hs.Shutdown(end) // the login is over, whether or not the browser has read the answer
		_ = hs.Close()
	}()
	t.show(t.address(l.Addr(), state, verifier))
	select {
	case got := <-back:
		if got.code == "" {
			return nil, fmt.Errorf("you are not logged in: %s", got.reason)
		}
		done, err := t.Sessions.FinishLogin(ctx, &carav1.FinishLoginRequest{Code: got.code, Verifier: verifier})
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return done, err
	case err := <-served:
		return nil, fmt.Errorf("listen for the browser: %w", err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// address returns where the person logs in. It has no secret: the challenge is the hash of one.
func (t Terminal) address(port net.Addr, state, verifier string) string {
	at, _ := port.(*net.TCPAddr) // it listens on TCP
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"port": {strconv.Itoa(at.Port)}, "state": {state}, "challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}
	return strings.TrimSuffix(t.Server, "/") + "/ui/login/caractrl?" + q.Encode()
}

func (t Terminal) show(address string) {
	fmt.Fprintf(t.Err, "Log in with a browser of this machine:\n  %s\n", term.Clean(address))
	if t.Open != nil {
		t.Open(address)
	}
	fmt.Fprintln(t.Err, "Waiting until you have logged in, at most 10 minutes. Ctrl-C cancels the login.")
}

// receive takes what the browser brings. Another page cannot send anything, because it does not know the state.
func receive(state string, back chan<- brought) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != "/" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.Error(w, "No login waits at this address.", http.StatusNotFound)
			return
		}
		got := brought{q.Get("code"), text.Printable(q.Get("error"), maxReason)}
		if got.code == "" && got.reason == "" {
			got.reason = "the page has sent no code"
		}
		select {
		case back <- got:
		default: // the browser has brought something before
		}
		if got.code == "" {
			fmt.Fprintf(w, "You are not logged in: %s\nYou can close this page.\n", got.reason)
			return
		}
		fmt.Fprintln(w, "Go back to the terminal. You can close this page.")
	})
}

// Browser returns what opens an address in a browser of this machine; nil if there is no browser.
func Browser() func(address string) {
	program := "xdg-open"
	switch {
	case runtime.GOOS == "darwin":
		program = "open"
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return nil // xdg-open would take the terminal
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil
	}
	return func(address string) {
		cmd := exec.Command(path, address) //nolint:noctx // the browser stays when caractrl ends
		if cmd.Start() == nil {
			_ = cmd.Process.Release()
		}
	}
}
