package certs

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestAdvised(t *testing.T) {
	old := func(change func(*carav1.CertificateOrder)) *carav1.CertificateOrder {
		s := &carav1.CertificateOrder{
			Metadata: &carav1.ObjectMeta{Name: "a.example"}, NotBefore: at(-30 * day), NotAfter: at(60 * day), RenewAt: at(29 * day), Serial: []byte{1},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	window := func(from, to time.Duration) Advice {
		return Advice{Start: noon.Add(from), End: noon.Add(to), Page: "https://ca.example/why?a=b"}
	}
	recalled := func(s *carav1.CertificateOrder) {
		s.Recalled, s.RecallUrl, s.RenewAt = true, "https://ca.example/why?a=b", at(-time.Hour)
	}
	part := share(2*day, "a.example").Truncate(time.Second)
	for name, c := range map[string]struct {
		old, want *carav1.CertificateOrder
		advice    Advice
	}{
		"later":         {old(nil), old(func(s *carav1.CertificateOrder) { s.RenewAt = at(40*day + part) }), window(40*day, 42*day)},
		"earlier":       {old(nil), old(func(s *carav1.CertificateOrder) { s.RenewAt = at(-day + part) }), window(-day, day)},
		"same":          {old(func(s *carav1.CertificateOrder) { s.RenewAt = at(40*day + part) }), nil, window(40*day, 42*day)},
		"far too late":  {old(nil), old(func(s *carav1.CertificateOrder) { s.RenewAt = at(51 * day) }), window(100*day, 101*day)},
		"revoked":       {old(nil), old(recalled), window(-time.Hour, -time.Hour+time.Millisecond)},
		"still revoked": {old(recalled), nil, window(-time.Minute, -time.Second)},
		"not any more":  {old(recalled), old(func(s *carav1.CertificateOrder) { s.RenewAt = at(40*day + part) }), window(40*day, 42*day)},
		"due anyway": {
			old(func(s *carav1.CertificateOrder) { s.NotAfter = at(10 * day) }),
			old(func(s *carav1.CertificateOrder) { s.NotAfter, s.RenewAt = at(10*day), at(-time.Hour) }), window(-time.Hour, -time.Hour+time.Millisecond),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := Advised(c.old, c.advice, noon), c.want
			if want == nil && got != c.old {
				t.Errorf("it has changed to %v", got)
			}
			if want != nil {
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestExplanation(t *testing.T) {
	for page, want := range map[string]string{
		"https://ca.example/why":  "https://ca.example/why",
		"":                        "",
		"http://ca.example/why":   "",
		"https://u:p@ca.example/": "",
		"javascript:alert(1)":     "",
		"https://ca.example/\x1b": "",
		"https://ca.example/a b":  "https://ca.example/a%20b",
		"https://ca.example/" + strings.Repeat("a", maxExplanation): "",
	} {
		if got := explanation(page); got != want {
			t.Errorf("%q: %q, want %q", page, got, want)
		}
	}
}

func TestReadAdvice(t *testing.T) {
	for text, good := range map[string]bool{
		`{"suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-02T04:00:01Z"}}`: true,
		`{"suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-02T04:00:00Z"}}`: false,
		`{"suggestedWindow": {"start": "2026-01-03T04:00:00Z", "end": "2026-01-02T04:00:00Z"}}`: false,
		`{"suggestedWindow": {"start": "soon", "end": "later"}}`:                                false,
		`{}`:   false,
		`null`: false,
		``:     false,
	} {
		if _, err := readAdvice(json.NewDecoder(strings.NewReader(text))); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRevoked: a certificate that the authority has revoked is replaced soon, and the project's condition and events say so.
func TestRevoked(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.Lead("other.test", "127.0.0.1")
	r.claim("shop", "app.test")
	r.claim("other", "other.test")
	r.ready("shop", api.StatusTrue, "app.test: valid until")
	r.ready("other", api.StatusTrue, "other.test: valid until")
	first, kept := r.shows(https, "app.test"), r.shows(https, "other.test")
	conn, err := r.server.Client(api.RoleCerts)
	r.must(err)
	account, err := carav1.NewCertificateServiceClient(conn).GetAcmeAccount(t.Context(), &carav1.GetRequest{Name: accountName(r.Directory, "ops@example.com", "")})
	r.must(err)
	key, err := decodeKey(account.GetKey())
	r.must(err)
	client := newAuthority(r.config(), nil).client
	r.must(client.RevokeCertificate(t.Context(), acme.Account{Location: account.GetLocation(), PrivateKey: key}, first, nil, acme.ReasonKeyCompromise))
	r.pass(7 * time.Hour) // the next question is after six hours
	r.await("the certificate is replaced", func() error {
		if again := r.shows(https, "app.test"); again.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return errSame
		}
		return nil
	})
	want := api.ReasonCertificateIssued + " " + api.ReasonCertificateRecalled + " " + api.ReasonCertificateRenewed
	if got := r.events("shop"); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if message := r.ready("shop", api.StatusTrue, "app.test: valid until"); strings.Contains(message, "revoked") {
		t.Errorf("the condition speaks of the certificate before: %s", message)
	}
	if r.shows(https, "other.test").SerialNumber.Cmp(kept.SerialNumber) != 0 {
		t.Error("a certificate was replaced that was not revoked")
	}
}

// advised waits until the stored time for the renewal of a host is after a time.
func (r *rig) advised(host string, after time.Time) {
	r.Helper()
	conn, err := r.server.Client(api.RoleCerts)
	r.must(err)
	r.await("the advice about "+host+" is stored", func() error {
		orders, err := carav1.NewCertificateServiceClient(conn).ListCertificateOrders(r.Context(), &carav1.ListRequest{})
		if err != nil {
			return err
		}
		for _, o := range orders.GetItems() {
			if o.GetMetadata().GetName() == host && o.GetRenewAt().AsTime().After(after) {
				return nil
			}
		}
		return errSame
	})
}

// TestAuthorityAdvises: a certificate is renewed when its authority says. While that fails, the condition says why it matters.
func TestAuthorityAdvises(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	for _, host := range []string{"early.test", "late.test"} {
		r.Lead(host, "127.0.0.1")
	}
	r.claim("early", "early.test")
	r.claim("late", "late.test")
	r.ready("early", api.StatusTrue, "early.test: valid until")
	r.ready("late", api.StatusTrue, "late.test: valid until")
	early, late := r.shows(https, "early.test"), r.shows(https, "late.test")
	r.Advise(early, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute), "https://ca.example/incident")
	r.Advise(late, time.Now().Add(70*day), time.Now().Add(71*day), "")
	r.Lead("early.test", "198.51.100.7")
	r.pass(7 * time.Hour)
	r.ready("early", api.StatusTrue, "the authority wants this certificate to be replaced now; it has probably revoked it")
	r.ready("early", api.StatusTrue, "the authority explains: https://ca.example/incident; it could not be renewed: early.test leads to 198.51.100.7")
	r.Lead("early.test", "127.0.0.1")
	r.advised("late.test", time.Now().Add(69*day)) // it is asked about beside early.test, in any order
	r.pass(61 * day)
	r.await("the certificate is renewed", func() error {
		if again := r.shows(https, "early.test"); again.SerialNumber.Cmp(early.SerialNumber) == 0 {
			return errSame
		}
		return nil
	})
	if r.shows(https, "late.test").SerialNumber.Cmp(late.SerialNumber) != 0 {
		t.Error("the certificate was renewed before the time that the authority has named")
	}
	r.pass(10 * day)
	r.await("the certificate is renewed when the authority says", func() error {
		if again := r.shows(https, "late.test"); again.SerialNumber.Cmp(late.SerialNumber) == 0 {
			return errSame
		}
		return nil
	})
}
