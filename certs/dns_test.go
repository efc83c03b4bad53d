package certs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/certs/dns01"
	"github.com/caravanserai/cara/internal/test/testdns"
)

// rfc2136 makes the loop publish records by updates of a DNS server.
func rfc2136(s *testdns.Server) func(*rig, *Config) {
	return func(r *rig, c *Config) {
		file := filepath.Join(r.dir, "tsig")
		r.must(os.WriteFile(file, []byte(testdns.Secret), 0o600))
		c.DNS = &dns01.RFC2136{Server: s.Addr, KeyName: testdns.KeyName, Algorithm: testdns.Algorithm, SecretFile: file}
		c.DNSCheck = &dns01.Checker{Servers: []string{s.Addr}, Every: 50 * time.Millisecond, Limit: 10 * time.Second}
	}
}

// TestDNS: a host is validated by its record. Nothing of the record remains.
func TestDNS(t *testing.T) {
	s := testdns.Start(t)
	r := newRigWith(t, s.Addr, apiserver.Config{}, rfc2136(s))
	r.mute.Store(true) // agents answer nothing
	https := r.agent("n1", "127.0.0.1")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusFalse, "app.test has no address in DNS: add a record that leads to 127.0.0.1")
	if s.Updates() != 0 {
		t.Error("a host that does not lead to the cluster has got a record")
	}
	s.Lead("app.test", "127.0.0.1")

	s.Refuse(dns.RcodeRefused)
	r.pass(day)
	r.ready("shop", api.StatusFalse, "refused to update the zone test. with REFUSED: allow the TSIG key cara.test. to update TXT records")
	s.Refuse(0)
	s.Hide(true)
	r.pass(day)
	r.ready("shop", api.StatusFalse, "the TXT record _acme-challenge.app.test was not found within 10s: the DNS server "+s.Addr+" does not have it yet")
	if strings.Contains(r.Log(), "POST /chalZ/") {
		t.Error("the authority was asked to validate the host before its record was there")
	}
	s.Hide(false)
	r.pass(day)
	r.ready("shop", api.StatusTrue, "app.test: valid until")
	r.shows(https, "app.test")
	if left := s.TXT("_acme-challenge.app.test"); len(left) != 0 {
		t.Errorf("records are left: %q", left)
	}
}

// TestWildcard: a hundred hosts share one certificate, and a host that comes later needs no order. A host elsewhere has its own.
func TestWildcard(t *testing.T) {
	s := testdns.Start(t)
	settings := apiserver.Config{Hosts: api.HostTemplate{Environment: "dev", BaseDomain: "test"}}
	settings.Wildcard = settings.Hosts.Wildcard()
	r := newRigWith(t, s.Addr, settings, rfc2136(s))
	https := r.agent("n1", "127.0.0.1")
	r.claim("p0", "h0")
	r.ready("p0", api.StatusFalse, "h0.dev.test has no address in DNS")
	for i := 1; i < 100; i++ {
		s.Lead(fmt.Sprintf("h%d.dev.test", i), "127.0.0.1")
	}
	s.Lead("other.test", "127.0.0.1")
	for i := 1; i < 10; i++ {
		var hosts []string
		for j := range 11 {
			hosts = append(hosts, fmt.Sprintf("h%d", i+9*j))
		}
		r.claim(fmt.Sprintf("p%d", i), hosts...)
	}
	for i := range 10 {
		r.ready(fmt.Sprintf("p%d", i), api.StatusTrue, "valid until")
	}
	first := r.shows(https, "h42.dev.test")
	if n := r.orders(); n != 1 || len(first.DNSNames) != 1 || first.DNSNames[0] != "*.dev.test" {
		t.Errorf("%d orders, and a certificate for %q", n, first.DNSNames)
	}
	r.await("the projects have events", func() error {
		if got := r.events("p9"); !strings.HasSuffix(got, api.ReasonCertificateIssued) {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	})
	r.claim("late", "late")
	r.ready("late", api.StatusTrue, "late.dev.test: valid until")
	r.claim("other", "other.test")
	r.ready("other", api.StatusTrue, "other.test: valid until")
	if n := r.orders(); n != 2 {
		t.Errorf("%d orders, want one for the wildcard and one for the other host", n)
	}
	r.pass(61*day + time.Hour)
	r.await("the certificate is renewed", func() error {
		if again := r.shows(https, "late.dev.test"); again.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return errSame
		}
		return nil
	})
}

// TestWildcardLater: when the cluster begins to use a wildcard, a host keeps its own certificate until there is another one.
func TestWildcardLater(t *testing.T) {
	s := testdns.Start(t)
	settings := apiserver.Config{Hosts: api.HostTemplate{BaseDomain: "test"}}
	settings.Wildcard = "*.test"
	wildcard := ""
	with := rfc2136(s)
	r := newRigWith(t, s.Addr, settings, func(r *rig, c *Config) {
		with(r, c)
		c.Wildcard = wildcard
	})
	https := r.agent("n1", "127.0.0.1")
	s.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app")
	r.ready("shop", api.StatusTrue, "app.test: valid until")
	own := r.shows(https, "app.test")
	r.stop()
	wildcard = settings.Wildcard
	s.Refuse(dns.RcodeRefused)
	r.obtain()
	r.await("an order has failed", func() error {
		if !strings.Contains(r.events("shop"), api.ReasonCertificateFailed) {
			return errSame
		}
		return nil
	})
	r.ready("shop", api.StatusTrue, "app.test: valid until")
	if r.shows(https, "app.test").SerialNumber.Cmp(own.SerialNumber) != 0 {
		t.Error("the host has lost its certificate")
	}
	s.Refuse(0)
	r.pass(day)
	r.await("the wildcard is in use", func() error {
		if leaf := r.shows(https, "app.test"); leaf.DNSNames[0] != "*.test" {
			return fmt.Errorf("it is %q", leaf.DNSNames)
		}
		return nil
	})
	r.ready("shop", api.StatusTrue, "app.test: valid until")
}
