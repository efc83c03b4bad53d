package dns01

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	serverTimeout = 10 * time.Second // of one question to a DNS server
	recordTTL     = 60               // seconds
	clockSkew     = 300              // seconds that the clocks may differ, as RFC 8945 recommends
	maxSecret     = 4096             // bytes of a file
)

// Algorithms are the names of the TSIG algorithms.
func Algorithms() []string {
	return []string{"hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha224", "hmac-sha1"}
}

// RFC2136 publishes records by dynamic updates that are signed with a TSIG key.
type RFC2136 struct {
	// Server is the primary DNS server of the zone, as HOST:PORT.
	Server string
	// KeyName is the name of the key, Algorithm one of Algorithms.
	KeyName, Algorithm string
	// SecretFile has the key in base64. It is read for each update, so it can be replaced.
	SecretFile string
}

// Validate implements Provider.
func (p *RFC2136) Validate() error {
	if host, port, err := net.SplitHostPort(p.Server); err != nil || host == "" || port == "" {
		return fmt.Errorf("the DNS server %q: want HOST:PORT, such as ns1.example.com:53", p.Server)
	}
	if _, ok := dns.IsDomainName(p.KeyName); !ok || p.KeyName == "" {
		return fmt.Errorf("the name of the TSIG key %q: want a name such as cara.example.com", p.KeyName)
	}
	if !slices.Contains(Algorithms(), p.Algorithm) {
		return fmt.Errorf("the algorithm %q of the TSIG key: want one of %s", p.Algorithm, strings.Join(Algorithms(), ", "))
	}
	_, err := p.secret()
	return err
}

// secret returns the key in base64.
func (p *RFC2136) secret() (string, error) {
	text, err := readSecret(p.SecretFile)
	if err != nil {
		return "", fmt.Errorf("the TSIG key: %w", err)
	}
	if key, err := base64.StdEncoding.DecodeString(text); err != nil || len(key) == 0 {
		return "", fmt.Errorf("the TSIG key: %s must have the key in base64, as tsig-keygen writes it, and nothing else", p.SecretFile)
	}
	return text, nil
}

// Present implements Provider.
func (p *RFC2136) Present(ctx context.Context, r Record) error {
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Insert([]dns.RR{rr}) })
}

// CleanUp implements Provider.
func (p *RFC2136) CleanUp(ctx context.Context, r Record) error {
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Remove([]dns.RR{rr}) })
}

func (p *RFC2136) update(ctx context.Context, r Record, change func(*dns.Msg, dns.RR)) error {
	secret, err := p.secret()
	if err != nil {
		return err
	}
	name := dns.Fqdn(r.Name)
	zone, err := p.zone(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(zone)
	change(m, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}, Txt: []string{r.Value}})
	key := dns.CanonicalName(p.KeyName)
	m.SetTsig(key, dns.Fqdn(p.Algorithm), clockSkew, time.Now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: serverTimeout, TsigSecret: map[string]string{key: secret}}
	answer, _, err := client.ExchangeContext(ctx, m, p.Server)
	switch {
	case answer != nil && answer.Rcode != dns.RcodeSuccess:
		return p.refused(zone, answer)
	case err != nil:
		return fmt.Errorf("the DNS server %s has not answered an update of the zone %s: %w", p.Server, zone, err)
	case answer.IsTsig() == nil:
		return fmt.Errorf("the DNS server %s has answered an update of the zone %s without a signature: check that it knows the TSIG key %s", p.Server, zone, p.KeyName)
	}
	return nil
}

// zone returns the zone of a name, which the server tells.
func (p *RFC2136) zone(ctx context.Context, name string) (string, error) {
	answer, err := ask(ctx, p.Server, name, dns.TypeSOA)
	if err != nil {
		return "", fmt.Errorf("the DNS server %s has not told the zone of %s: %w", p.Server, name, err)
	}
	for _, rr := range append(answer.Answer, answer.Ns...) {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) && answer.Authoritative {
			return dns.CanonicalName(soa.Hdr.Name), nil
		}
	}
	return "", fmt.Errorf("the DNS server %s has no zone for %s (%s): name the primary server of the zone", p.Server, name, dns.RcodeToString[answer.Rcode])
}

// refused says why a server refused an update, and what to do.
func (p *RFC2136) refused(zone string, answer *dns.Msg) error {
	why := dns.RcodeToString[answer.Rcode]
	do := "see the log of the DNS server"
	if t := answer.IsTsig(); t != nil && t.Error != 0 {
		why = dns.RcodeToString[int(t.Error)]
		switch int(t.Error) {
		case dns.RcodeBadKey:
			do = fmt.Sprintf("the server does not know the TSIG key %s with the algorithm %s", p.KeyName, p.Algorithm)
		case dns.RcodeBadSig: // the same number as BADVERS
			why, do = "BADSIG", fmt.Sprintf("the server has another secret for the TSIG key %s", p.KeyName)
		case dns.RcodeBadTime:
			do = "the clocks of the two servers differ"
		}
	} else {
		switch answer.Rcode {
		case dns.RcodeRefused:
			do = fmt.Sprintf("allow the TSIG key %s to update TXT records below _acme-challenge in this zone", p.KeyName)
		case dns.RcodeNotAuth:
			do = fmt.Sprintf("check the TSIG key %s, and that this is the primary server of the zone", p.KeyName)
		case dns.RcodeNotZone, dns.RcodeNotImplemented:
			do = "name the primary server of the zone, and allow dynamic updates there"
		}
	}
	return fmt.Errorf("the DNS server %s refused to update the zone %s with %s: %s", p.Server, zone, why, do)
}

// ask asks one server, with TCP if the answer is too long for UDP.
func ask(ctx context.Context, server, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	answer, _, err := (&dns.Client{Timeout: serverTimeout}).ExchangeContext(ctx, m, server)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp", Timeout: serverTimeout}).ExchangeContext(ctx, m, server)
	}
	return answer, err
}

// readSecret reads a small file. Its errors contain nothing of the content.
func readSecret(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return "", fmt.Errorf("%s must be a file with at most %d bytes", file, maxSecret)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s can be read by all users: chmod o-rwx %s", file, file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", errors.New(file + " must have one line")
	}
	return text, nil
}
