package certs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// askWorkers is the number of certificates that the authority is asked about at the same time. They are not the workers of the
// orders, so an authority that does not answer delays no order.
const askWorkers = 2

// ask asks the authority when to renew the certificate of a host, and stores the answer if it differs from the last one.
func (o *Obtainer) ask(ctx context.Context, host string) (time.Duration, error) {
	now := o.cfg.Now()
	state, wait := o.hosts.startAsking(host, o.cfg.Directory, now)
	if state == nil {
		return min(wait, o.cfg.Glance), nil
	}
	defer o.hosts.endAsking(host)
	advice, again, err := o.authority.advice(ctx, state, now)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		o.cfg.Logger.Debug("the authority does not say when to renew", "host", host, "error", err)
		o.hosts.asked(host, now, 0)
		return o.cfg.Glance, nil
	}
	if next := Advised(state, advice, now); next != state {
		stored, err := o.server.UpdateCertificate(ctx, &carav1.UpdateCertificateRequest{
			Host: host, ResourceVersion: state.GetMetadata().GetResourceVersion(), Advice: true,
			Order: &carav1.CertificateOrder{RenewAt: next.GetRenewAt(), Recalled: next.GetRecalled(), RecallUrl: next.GetRecallUrl()},
		})
		if err != nil {
			return 0, loop.Refused(fmt.Errorf("store when to renew the certificate of %s: %w", host, err))
		}
		o.hosts.set(host, stored)
		o.queue.Add(host)
		o.cfg.Logger.Info("the authority says when to renew", "host", host, "at", next.GetRenewAt().AsTime(), "recalled", next.GetRecalled())
	}
	o.hosts.asked(host, now, again)
	return min(again, o.cfg.Glance), nil
}

// certificateOf returns what names the certificate of a host at the authority.
func certificateOf(s *carav1.CertificateOrder) *x509.Certificate {
	return &x509.Certificate{AuthorityKeyId: s.GetAuthorityKeyId(), SerialNumber: new(big.Int).SetBytes(s.GetSerial())}
}

// advice asks when a certificate should be renewed, and returns when to ask again. The library's own call repeats a request with
// pauses in between, takes windows of one second for errors, though authorities use them for revoked certificates, and reads the
// clock of the machine.
func (a *authority) advice(ctx context.Context, s *carav1.CertificateOrder, now time.Time) (Advice, time.Duration, error) {
	dir, err := a.client.GetDirectory(ctx)
	if err != nil {
		return Advice{}, 0, err
	}
	if dir.RenewalInfo == "" {
		return Advice{}, 0, acme.ErrUnsupported
	}
	id, err := acme.ARIUniqueIdentifier(certificateOf(s))
	if err != nil {
		return Advice{}, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, dir.RenewalInfo+"/"+id, http.NoBody)
	if err != nil {
		return Advice{}, 0, err
	}
	req.Header.Set("User-Agent", a.client.UserAgent)
	resp, err := a.client.HTTPClient.Do(req)
	if err != nil {
		return Advice{}, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Advice{}, 0, fmt.Errorf("the authority answered %s", resp.Status)
	}
	advice, err := readAdvice(json.NewDecoder(resp.Body))
	var named time.Duration
	if at := retryAfter(resp.Header.Get("Retry-After"), now); !at.IsZero() {
		named = at.Sub(now)
	}
	return advice, AskAgain(named), err
}

func readAdvice(body *json.Decoder) (Advice, error) {
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
		ExplanationURL  string
	}
	if err := body.Decode(&info); err != nil {
		return Advice{}, fmt.Errorf("read the answer of the authority: %w", err)
	}
	w := info.SuggestedWindow
	if w.Start.IsZero() || !w.Start.Before(w.End) {
		return Advice{}, errors.New("the authority named no time that can be used")
	}
	return Advice{Start: w.Start, End: w.End, Page: info.ExplanationURL}, nil
}
