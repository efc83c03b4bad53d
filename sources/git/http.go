package git

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

const (
	serviceType = "application/x-git-upload-pack"
	maxListing  = 32 << 20
)

// httpRemote is the connection to one repository over http.
type httpRemote struct {
	cfg    Config
	addr   address
	creds  credentials
	client *http.Client

	mu   sync.Mutex
	base string  // the repository's address after redirects on the same host
	v2   *advert // capabilities of a server with protocol 2, once known
}

func newHTTPRemote(cfg Config, a address, c credentials) *httpRemote {
	transport := &http.Transport{
		DialContext:            dialer(cfg.AllowCIDRs, cfg.ConnectTimeout),
		Proxy:                  nil, // not from the environment: see Config.Proxy
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		ResponseHeaderTimeout:  cfg.IdleTimeout,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // packs are already compressed, and the limit must count the bytes that are read
		ForceAttemptHTTP2:      true,
	}
	if cfg.Proxy != nil {
		// The operator chose the proxy. It resolves the names, so only addresses in URLs can be checked here.
		transport.Proxy = func(req *http.Request) (*url.URL, error) {
			return cfg.Proxy, checkHost(req.URL.Hostname(), cfg.AllowCIDRs)
		}
		transport.DialContext = (&net.Dialer{Timeout: cfg.ConnectTimeout}).DialContext
	}
	if len(c.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // without a system pool, trust only the given authority
		}
		pool.AppendCertsFromPEM(c.ca)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &httpRemote{
		cfg: cfg, addr: a, creds: c, base: strings.TrimSuffix(a.String(), "/"),
		client: &http.Client{Transport: transport, CheckRedirect: sameHost},
	}
}

func (r *httpRemote) close() { r.client.CloseIdleConnections() }

// sameHost rejects redirects that would send the request and its credentials to another host.
func sameHost(req *http.Request, via []*http.Request) error {
	from := via[0].URL
	if req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return &redirectError{req.URL.Scheme + "://" + req.URL.Host}
	}
	if len(via) > 5 {
		return errors.New("more than 5 redirects")
	}
	return nil
}

type redirectError struct{ to string }

func (e *redirectError) Error() string { return "redirect to " + e.to }

// greet asks for the server's protocol. In protocol 0 the response also lists the refs.
func (r *httpRemote) greet(ctx context.Context) (*advert, error) {
	ctx, dog, stop := watch(ctx, r.cfg.IdleTimeout)
	defer stop()
	const query = "/info/refs?service=git-upload-pack"
	resp, err := r.do(ctx, http.MethodGet, r.repo()+query, nil)
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, serviceType+"-advertisement") {
		return nil, sources.Human(api.ReasonRepositoryNotFound, "%s is not a git repository that speaks the smart protocol; check spec.git.url", r.addr)
	}
	a, err := readAdvert(newPktReader(limit(resp.Body, dog, maxListing, "the list of refs")))
	if err != nil {
		return nil, explain(ctx, r.addr, r.creds, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.v2 {
		r.v2 = a
	}
	if final := resp.Request.URL; final != nil {
		moved := *final
		moved.RawQuery, moved.User = "", nil
		if base, ok := strings.CutSuffix(moved.String(), "/info/refs"); ok {
			r.base = base
		}
	}
	return a, nil
}

func (r *httpRemote) repo() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base
}

func (r *httpRemote) advert(ctx context.Context) (*advert, error) {
	r.mu.Lock()
	a := r.v2
	r.mu.Unlock()
	if a != nil {
		return a, nil
	}
	return r.greet(ctx)
}

// list returns at least the refs with these prefixes.
func (r *httpRemote) list(ctx context.Context, prefixes []string) (*listing, error) {
	a, err := r.advert(ctx)
	if err != nil {
		return nil, err
	}
	if !a.v2 {
		return a.all, nil
	}
	ctx, dog, stop := watch(ctx, r.cfg.IdleTimeout)
	defer stop()
	resp, err := r.post(ctx, a.lsRefs(prefixes))
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	l, err := readLsRefs(newPktReader(limit(resp.Body, dog, maxListing, "the list of refs")))
	if err != nil {
		return nil, explain(ctx, r.addr, r.creds, err)
	}
	return l, nil
}

// fetch passes the pack to read. The pack is valid only during that call.
func (r *httpRemote) fetch(ctx context.Context, w wish, read func(io.Reader, bool) error) error {
	a, err := r.advert(ctx)
	if err != nil {
		return err
	}
	request, err := a.fetch(w)
	if err != nil {
		return err
	}
	ctx, dog, stop := watch(ctx, r.cfg.IdleTimeout)
	defer stop()
	resp, err := r.post(ctx, request)
	if err != nil {
		return err
	}
	defer closeBody(resp)
	pack, err := a.readFetch(newPktReader(limit(resp.Body, dog, r.cfg.MaxWireBytes, "what "+r.addr.String()+" sends for one commit")))
	if err == nil {
		err = read(pack, a.filters() && !w.blobs)
	}
	if err != nil {
		return explain(ctx, r.addr, r.creds, err)
	}
	return nil
}

func (r *httpRemote) post(ctx context.Context, body []byte) (*http.Response, error) {
	resp, err := r.do(ctx, http.MethodPost, r.repo()+"/git-upload-pack", body)
	if err != nil {
		// The server may have been replaced: greet it again next time.
		r.mu.Lock()
		r.v2 = nil
		r.mu.Unlock()
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, serviceType+"-result") {
		closeBody(resp)
		return nil, sources.Retry(api.ReasonProtocolError, "%s answered a fetch with content type %q", r.addr, r.creds.scrub(t))
	}
	return resp, nil
}

func (r *httpRemote) do(ctx context.Context, method, address string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, sources.Human(api.ReasonInvalidSpec, "spec.git.url is not a valid URL; see https://host/team/repo.git")
	}
	req.Header.Set("User-Agent", "git/"+agent)
	req.Header.Set("Git-Protocol", "version=2")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", serviceType+"-request")
		req.Header.Set("Accept", serviceType+"-result")
	}
	if r.creds.password != "" {
		req.SetBasicAuth(r.creds.user, r.creds.password)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, explain(ctx, r.addr, r.creds, err)
	}
	if resp.StatusCode != http.StatusOK {
		closeBody(resp)
		return nil, r.status(resp)
	}
	return resp, nil
}

// closeBody reads a little of the rest, so that the connection can be reused.
func closeBody(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // best effort: otherwise the connection is closed
	_ = resp.Body.Close()
}

// status explains a response other than 200.
func (r *httpRemote) status(resp *http.Response) error {
	withSecret := "its credentials (spec.git.secretRef) are not accepted or may not read it"
	if r.creds.password == "" {
		withSecret = "name a Secret with `token`, or `username` and `password`, in spec.git.secretRef"
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return sources.Human(api.ReasonAuthFailed, "%s refused access (%d): %s", r.addr, code, withSecret)
	case code == http.StatusNotFound || code == http.StatusGone:
		return sources.Human(api.ReasonRepositoryNotFound, "%s does not exist, or the credentials may not see it (%d); check spec.git.url and spec.git.secretRef", r.addr, code)
	case code == http.StatusTooManyRequests || code >= 500:
		e := sources.Retry(api.ReasonUnreachable, "%s answered %d %s; it will be tried again", r.addr, code, http.StatusText(code))
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), r.cfg.Now())
		return e
	default:
		return sources.Human(api.ReasonRepositoryNotFound, "%s answered %s; check spec.git.url", r.addr, fmt.Sprintf("%d %s", code, http.StatusText(code)))
	}
}

// retryAfter parses the header, in seconds or as a date, and limits it to an hour.
func retryAfter(header string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if secs, err := strconv.Atoi(header); err == nil && secs > 0 {
		wait = time.Duration(min(secs, 3600)) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return max(0, min(wait, time.Hour))
}
