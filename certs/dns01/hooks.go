package dns01

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caravanserai/cara/internal/text"
)

const (
	hookTimeout = time.Minute
	hookOutput  = 4 << 10 // bytes that are read of an answer, or kept of an output
	hookShown   = 300     // bytes of it that an error shows
)

// Exec runs a command: PATH present|cleanup NAME VALUE.
type Exec struct {
	// Path of the command. It is absolute.
	Path string
	// Timeout of a run; zero is a minute.
	Timeout time.Duration
}

// Validate implements Provider.
func (p *Exec) Validate() error {
	if !filepath.IsAbs(p.Path) {
		return fmt.Errorf("the command %q: want an absolute path", p.Path)
	}
	info, err := os.Stat(p.Path)
	if err != nil {
		return fmt.Errorf("the command: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("the command %s cannot be executed: chmod +x %s", p.Path, p.Path)
	}
	return nil
}

// Present implements Provider.
func (p *Exec) Present(ctx context.Context, r Record) error { return p.run(ctx, present, r) }

// CleanUp implements Provider.
func (p *Exec) CleanUp(ctx context.Context, r Record) error { return p.run(ctx, cleanUp, r) }

func (p *Exec) run(ctx context.Context, action string, r Record) error {
	limit := cmp.Or(p.Timeout, hookTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := &tail{}
	cmd := exec.CommandContext(ctx, p.Path, action, r.Name, r.Value)
	cmd.Stderr, cmd.WaitDelay = out, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with what it has started
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the command %s %s %s has not ended within %s", p.Path, action, r.Name, limit)
	}
	said := out.last()
	if said != "" {
		said = ": " + said
	}
	return fmt.Errorf("the command %s %s %s failed (%w)%s", p.Path, action, r.Name, err, said)
}

// tail keeps the end of an output.
type tail struct{ data []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(0, len(p)-hookOutput):]...)
	t.data = t.data[max(0, len(t.data)-hookOutput):]
	return len(p), nil
}

// last returns the last line that is not empty.
func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(string(t.data)), "\n")
	return text.Clip(text.Line(lines[len(lines)-1]), hookShown)
}

// HTTP calls a web service.
type HTTP struct {
	// URL gets POST requests. It is https, or http on this machine.
	URL string
	// TokenFile has a bearer token for the requests; empty means none. It is read for each request, so it can be replaced.
	TokenFile string
	// Client is optional.
	Client *http.Client
}

// request is what the web service gets.
type request struct {
	Action string `json:"action"`
	Name   string `json:"name"`
	Value  string `json:"value"`
}

// Validate implements Provider.
func (p *HTTP) Validate() error {
	u, err := url.Parse(p.URL) // the error would have the URL, which may have a secret
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the URL of the web service: want https://HOST/PATH")
	case u.User != nil:
		return errors.New("the URL of the web service has a password: remove it, and put a token into a file")
	case u.Scheme == "http" && !local(u.Hostname()):
		return errors.New("the URL of the web service: http is only for this machine, such as http://127.0.0.1:8053/; use https")
	case p.TokenFile == "":
		return nil
	}
	_, err = readSecret(p.TokenFile)
	return err
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Present implements Provider.
func (p *HTTP) Present(ctx context.Context, r Record) error { return p.call(ctx, present, r) }

// CleanUp implements Provider.
func (p *HTTP) CleanUp(ctx context.Context, r Record) error { return p.call(ctx, cleanUp, r) }

func (p *HTTP) call(ctx context.Context, action string, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	req, err := p.request(ctx, request{action, r.Name, r.Value})
	if err != nil {
		return err
	}
	client := http.Client{}
	if p.Client != nil {
		client = *p.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // it would pass the token on
	where := req.URL.Host
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL
		}
		return fmt.Errorf("the web service at %s has not answered %s for %s: %w", where, action, r.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	var answer struct {
		Error string `json:"error"`
	}
	said := ""
	if json.NewDecoder(io.LimitReader(resp.Body, hookOutput)).Decode(&answer) == nil && answer.Error != "" {
		said = ": " + text.Clip(text.Line(answer.Error), hookShown)
	}
	return fmt.Errorf("the web service at %s answered %s for %s with the status %d%s", where, action, r.Name, resp.StatusCode, said)
}

func (p *HTTP) request(ctx context.Context, r request) (*http.Request, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL of the web service cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	if p.TokenFile != "" {
		token, err := readSecret(p.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("the token for the web service: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}
