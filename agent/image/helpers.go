package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits of a credential helper.
const (
	helperTimeout = 30 * time.Second
	helperOutput  = 64 << 10
	// keptFor is how long a login is used again. The protocol does not say when a login ends, so this is short.
	keptFor = time.Minute
	// endsBefore is how long before its end a login is not used any more.
	endsBefore = 30 * time.Second
)

// Helpers are the credential helpers of this node: programs that print the login for a registry, by Docker's protocol. A nil
// Helpers has none. No error contains what a helper prints.
type Helpers struct {
	programs map[string]string // by registry
	now      func() time.Time

	mu   sync.Mutex
	kept map[string]login
}

type login struct {
	auth *carav1.RegistryAuth
	ends time.Time
}

// ParseHelpers parses REGISTRY=HELPER. A HELPER is an absolute path, or NAME for the program docker-credential-NAME.
func ParseHelpers(specs []string) (*Helpers, error) {
	h := &Helpers{programs: map[string]string{}, now: time.Now, kept: map[string]login{}}
	for _, spec := range specs {
		server, helper, found := strings.Cut(spec, "=")
		registry := syntax.Registry(server)
		switch {
		case !found || registry == "" || helper == "" || strings.Contains(registry, "/"):
			return nil, fmt.Errorf("%q is not REGISTRY=HELPER, such as 123.dkr.ecr.eu-west-1.amazonaws.com=ecr-login", spec)
		case h.programs[registry] != "":
			return nil, fmt.Errorf("%q: there is a second helper for %s; keep one", spec, registry)
		case !filepath.IsAbs(helper) && strings.ContainsRune(helper, '/'):
			return nil, fmt.Errorf("%q: the helper is an absolute path, or NAME for the program docker-credential-NAME", spec)
		case !filepath.IsAbs(helper):
			helper = "docker-credential-" + helper
		}
		path, err := exec.LookPath(helper)
		if err != nil {
			return nil, fmt.Errorf("%q: the program %s is not installed, or may not be executed", spec, helper)
		}
		h.programs[registry] = path
	}
	return h, nil
}

// Auth returns the login for the registry of an image, or nil if no helper knows one. If the registry has refused a login, it
// asks the helper again instead of using that login from its memory.
func (h *Helpers) Auth(ctx context.Context, ref string, refused *carav1.RegistryAuth) (*carav1.RegistryAuth, error) {
	registry := h.registryOf(ref)
	if registry == "" {
		return nil, nil
	}
	h.mu.Lock()
	kept := h.kept[registry]
	h.mu.Unlock()
	if kept.auth != nil && h.now().Before(kept.ends) && !proto.Equal(kept.auth, refused) {
		return kept.auth, nil
	}
	auth, err := ask(ctx, h.programs[registry], registry)
	if err != nil {
		return nil, fmt.Errorf("pull image %s: %w: %w", ref, engine.ErrRegistry, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept[registry] = login{auth, h.endOf(auth)}
	return auth, nil
}

// Drop forgets a login with which a pull has failed.
func (h *Helpers) Drop(ref string, auth *carav1.RegistryAuth) {
	if registry := h.registryOf(ref); registry != "" {
		h.mu.Lock()
		defer h.mu.Unlock()
		if proto.Equal(h.kept[registry].auth, auth) {
			delete(h.kept, registry)
		}
	}
}

// registryOf returns the registry of an image if it has a helper, or "".
func (h *Helpers) registryOf(ref string) string {
	if h == nil || len(h.programs) == 0 {
		return ""
	}
	for _, registry := range syntax.RegistriesOf(ref) {
		if h.programs[registry] != "" {
			return registry
		}
	}
	return ""
}

// endOf returns when a login is asked for again: after keptFor, or before the end that a JSON web token names.
func (h *Helpers) endOf(auth *carav1.RegistryAuth) time.Time {
	ends := h.now().Add(keptFor)
	parts := strings.Split(auth.GetPassword(), ".")
	if len(parts) != 3 {
		return ends
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Exp == 0 {
		return ends
	}
	if at := time.Unix(claims.Exp, 0).Add(-endsBefore); at.Before(ends) {
		return at
	}
	return ends
}

// notFound is what a helper prints if it has no login, by Docker's protocol.
const notFound = "credentials not found in native keychain"

// ask runs a helper. It returns nil if the helper has no login.
func ask(ctx context.Context, program, registry string) (*carav1.RegistryAuth, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	server := registry
	if registry == syntax.Registry("docker.io") {
		server = "https://index.docker.io/v1/" // as docker login stores it
	}
	out := &bounded{left: helperOutput}
	cmd := exec.CommandContext(ctx, program, "get") //nolint:gosec // the node's operator names the program
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = strings.NewReader(server+"\n"), out, time.Second
	err := cmd.Run()
	const advice = "; run `echo %s | %s get` as the agent's user to see why"
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the credential helper %s did not answer within %s"+advice, program, helperTimeout, server, program)
	case strings.Contains(out.kept.String(), notFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("the credential helper %s failed (%w)"+advice, program, exitOf(err), server, program)
	}
	var answer struct{ Username, Secret string }
	if out.full || json.Unmarshal(out.kept.Bytes(), &answer) != nil || answer.Secret == "" {
		return nil, fmt.Errorf("the credential helper %s printed no login"+advice, program, server, program)
	}
	return &carav1.RegistryAuth{Username: answer.Username, Password: answer.Secret}, nil
}

// exitOf returns an error without what a program has printed.
func exitOf(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return errors.New(exit.String())
	}
	return err
}

// bounded keeps the first bytes that are written to it. It does not embed the buffer, whose ReadFrom has no limit.
type bounded struct {
	kept bytes.Buffer
	left int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full = true
		return 0, io.ErrShortWrite
	}
	b.left -= len(p)
	return b.kept.Write(p)
}

// hidden is an error with another text, in which a login is redacted.
type hidden struct {
	error
	text string
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.error }

// hide redacts a login in an error: a registry may repeat what it was sent.
func hide(err error, auth *carav1.RegistryAuth) error {
	if err == nil || auth == nil || !strings.Contains(err.Error(), auth.GetPassword()) {
		return err
	}
	return hidden{err, strings.ReplaceAll(err.Error(), auth.GetPassword(), api.Redacted)}
}
