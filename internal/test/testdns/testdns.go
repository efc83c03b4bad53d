// Package testdns runs a DNS server for tests: the primary server of the zone `test.`, which takes dynamic updates of TXT records
// that are signed with a TSIG key.
//
// It has no part in a push. The tests of DNS-01 use it. Its one rule: it answers from what tests and updates have set, and asks no
// other server.
package testdns

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The TSIG key of the server.
const (
	KeyName   = "cara.test."
	Algorithm = "hmac-sha256"
	Secret    = "dGhlIHNlY3JldCBvZiB0aGUgdGVzdCdzIEROUyBzZXJ2ZXI=" //nolint:gosec // of tests
)

const (
	zone = "test."
	ttl  = 1
)

// Server is a DNS server.
type Server struct {
	// Addr is its address, for UDP and TCP.
	Addr string

	mu        sync.Mutex
	addresses map[string][]string // by name
	txt       map[string][]string
	hidden    bool
	refuses   int
	updates   int
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{addresses: map[string][]string{"ns.test.": {"127.0.0.1"}}, txt: map[string][]string{}}
	var tcp net.Listener
	var udp net.PacketConn
	var err error
	for range 20 { // until a port is free for both
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // the test ends it
			tb.Fatal(err)
		}
		s.Addr = tcp.Addr().String()
		if udp, err = net.ListenPacket("udp", s.Addr); err == nil { //nolint:noctx // the test ends it
			break
		}
		if err := tcp.Close(); err != nil {
			tb.Fatal(err)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	secrets := map[string]string{KeyName: Secret}
	for _, d := range []*dns.Server{
		{Listener: tcp, Handler: s, TsigSecret: secrets, MsgAcceptFunc: accept},
		{PacketConn: udp, Handler: s, TsigSecret: secrets, MsgAcceptFunc: accept},
	} {
		started, ended := make(chan struct{}), make(chan error, 1)
		d.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- d.ActivateAndServe() }()
		<-started
		tb.Cleanup(func() {
			if err := errors.Join(d.Shutdown(), <-ended); err != nil {
				tb.Error(err)
			}
		})
	}
	return s
}

// accept accepts questions and updates.
func accept(h dns.Header) dns.MsgAcceptAction {
	if h.Bits>>11&0xF == dns.OpcodeUpdate {
		return dns.MsgAccept
	}
	return dns.DefaultMsgAcceptFunc(h)
}

// Lead sets the addresses of a host; none removes them.
func (s *Server) Lead(host string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses[dns.CanonicalName(host)] = addresses
}

// Hide makes the server answer as if it had no TXT records yet.
func (s *Server) Hide(hidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden = hidden
}

// Refuse makes the server refuse updates with an answer; 0 accepts them.
func (s *Server) Refuse(rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = rcode
}

// Updates returns how many updates the server has accepted.
func (s *Server) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// Set adds a value of a name, or removes it.
func (s *Server) Set(name, value string, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(dns.CanonicalName(name), value, there)
}

// set is Set with mu held.
func (s *Server) set(name, value string, there bool) {
	s.txt[name] = slices.DeleteFunc(s.txt[name], func(v string) bool { return v == value })
	if there {
		s.txt[name] = append(s.txt[name], value)
	}
}

// TXT returns the values of a name.
func (s *Server) TXT(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.txt[dns.CanonicalName(name)])
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	s.mu.Lock()
	if r.Opcode == dns.OpcodeUpdate {
		s.update(w, r, m)
	} else {
		s.answer(r, m)
	}
	s.mu.Unlock()
	_ = w.WriteMsg(m) // the client may be gone
}

// update applies an update if it is signed. mu is held.
func (s *Server) update(w dns.ResponseWriter, r, m *dns.Msg) {
	t := r.IsTsig()
	if t == nil {
		m.Rcode = dns.RcodeRefused
		return
	}
	known := t.Hdr.Name == KeyName && t.Algorithm == dns.Fqdn(Algorithm)
	if !known || w.TsigStatus() != nil {
		m.Rcode = dns.RcodeNotAuth
		bad := dns.RcodeBadSig
		if !known {
			bad = dns.RcodeBadKey
		}
		m.Extra = append(m.Extra, &dns.TSIG{ // such an answer is not signed
			Hdr:       dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
			Algorithm: t.Algorithm, TimeSigned: t.TimeSigned, Fudge: t.Fudge, OrigId: r.Id, Error: uint16(bad),
		})
		return
	}
	m.SetTsig(t.Hdr.Name, t.Algorithm, t.Fudge, int64(t.TimeSigned)) //nolint:gosec // a time
	if m.Rcode = s.refuses; m.Rcode != 0 {
		return
	}
	if len(r.Question) != 1 || r.Question[0].Name != zone {
		m.Rcode = dns.RcodeNotZone
		return
	}
	for _, rr := range r.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok || !strings.HasPrefix(txt.Hdr.Name, "_acme-challenge.") || len(txt.Txt) != 1 {
			m.Rcode = dns.RcodeRefused
			return
		}
		s.set(txt.Hdr.Name, txt.Txt[0], txt.Hdr.Class == dns.ClassINET)
	}
	s.updates++
}

// answer answers a question. mu is held.
func (s *Server) answer(r, m *dns.Msg) {
	q := r.Question[0]
	name := dns.CanonicalName(q.Name)
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}, Ns: "ns.test.", Mbox: "ops.test.", Minttl: ttl}
	if !dns.IsSubDomain(zone, name) {
		m.Rcode, m.Authoritative = dns.RcodeRefused, false
		return
	}
	switch {
	case q.Qtype == dns.TypeSOA && name == zone:
		m.Answer = append(m.Answer, soa)
	case q.Qtype == dns.TypeNS && name == zone:
		m.Answer = append(m.Answer, &dns.NS{Hdr: head, Ns: "ns.test."})
	case q.Qtype == dns.TypeA:
		for _, ip := range s.addresses[name] {
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.ParseIP(ip)})
		}
	case q.Qtype == dns.TypeTXT && !s.hidden:
		for _, value := range s.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{value}})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, soa)
		if len(s.addresses[name]) == 0 && len(s.txt[name]) == 0 && name != zone {
			m.Rcode = dns.RcodeNameError
		}
	}
}
