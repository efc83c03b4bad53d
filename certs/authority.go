package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxAnswer    = 1 << 20 // bytes of one answer of the authority
	callTimeout  = 30 * time.Second
	pollEvery    = time.Second
	pollAtMost   = 2 * time.Minute
	orderAtMost  = 10 * time.Minute
	cleanUpAfter = 10 * time.Second
)

// authority talks to one certificate authority.
type authority struct {
	client   *acme.Client
	accounts *accounts
}

func newAuthority(cfg Config, accounts *accounts) *authority {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = cfg.tls()
	return &authority{
		accounts: accounts,
		client: &acme.Client{
			Directory: cfg.Directory, UserAgent: "cara/" + cfg.Version, PollInterval: pollEvery, PollTimeout: pollAtMost,
			HTTPClient: &http.Client{Transport: &bounded{tr}, Timeout: callTimeout},
			Logger:     slog.New(slog.DiscardHandler), // the loop reports the result, and the library's lines would have tokens
		},
	}
}

// issued is a new certificate.
type issued struct{ chain, key []byte }

// obtain orders a certificate for a host and returns it with its key. It returns after some minutes at the latest.
// state is what is stored about the host.
func (a *authority) obtain(ctx context.Context, host string, state *carav1.CertificateOrder, solvers map[string]acmez.Solver) (issued, error) {
	ctx, cancel := context.WithTimeout(ctx, orderAtMost)
	defer cancel()
	made, err := a.order(ctx, host, a.replaces(ctx, state), solvers)
	if problem, ok := errors.AsType[acme.Problem](err); ok && problem.Type == acme.ProblemTypeAccountDoesNotExist {
		return a.order(ctx, host, nil, solvers) // with the account that is registered again
	}
	return made, err
}

// replaces returns the certificate that an order can say it replaces: authorities then do not count it among those that they limit.
// After a failure the order does not say so, because an authority can refuse it for that, such as after the loss of the account.
func (a *authority) replaces(ctx context.Context, s *carav1.CertificateOrder) *x509.Certificate {
	if len(s.GetSerial()) == 0 || s.GetCertificateDirectory() != a.client.Directory || s.GetProblem() != "" {
		return nil
	}
	if dir, err := a.client.GetDirectory(ctx); err != nil || dir.RenewalInfo == "" {
		return nil
	}
	return certificateOf(s)
}

// order makes one order.
func (a *authority) order(ctx context.Context, host string, replaces *x509.Certificate, solvers map[string]acmez.Solver) (issued, error) {
	account, err := a.accounts.get(ctx, a.client)
	if err != nil {
		return issued{}, err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued{}, fmt.Errorf("generate a key: %w", err)
	}
	csr, err := acmez.NewCSR(signer, []string{host})
	if err != nil {
		return issued{}, fmt.Errorf("request a certificate for %s: %w", host, err)
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return issued{}, fmt.Errorf("request a certificate for %s: %w", host, err)
	}
	params.Replaces = replaces
	client := acmez.Client{Client: a.client, ChallengeSolvers: solvers}
	chains, err := client.ObtainCertificate(ctx, params)
	if problem, ok := errors.AsType[acme.Problem](err); ok && problem.Type == acme.ProblemTypeAccountDoesNotExist {
		a.accounts.forget(account.Location)
	}
	if err != nil {
		return issued{}, err
	}
	if len(chains) == 0 || len(chains[0].ChainPEM) == 0 {
		return issued{}, errors.New("the authority sent no certificate")
	}
	key, err := encodeKey(signer)
	return issued{chain: chains[0].ChainPEM, key: key}, err
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	return signer, nil
}

// bounded limits the answers of the authority, and notes when it wants to be asked again.
type bounded struct{ inner http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= http.StatusInternalServerError {
		if n, ok := r.Context().Value(noteKey{}).(*note); ok {
			n.set(resp.Header.Get("Retry-After"))
		}
	}
	return resp, nil
}

// note is where an attempt finds the last Retry-After of the authority, which the library's errors do not have.
type note struct {
	now func() time.Time

	mu sync.Mutex
	at time.Time
}

type noteKey struct{}

func withNote(ctx context.Context, now func() time.Time) (context.Context, *note) {
	n := &note{now: now}
	return context.WithValue(ctx, noteKey{}, n), n
}

// set notes a Retry-After. Anything that is neither a number of seconds nor a date is ignored.
func (n *note) set(header string) {
	at := retryAfter(header, n.now())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = at
}

// retryAfter returns the time that a Retry-After names, or the zero time.
func retryAfter(header string, now time.Time) time.Time {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31); err == nil {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	if date, err := http.ParseTime(header); err == nil {
		return date
	}
	return time.Time{}
}

func (n *note) get() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}
