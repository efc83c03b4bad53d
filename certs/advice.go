package certs

import (
	"net/url"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// An authority says when each of its certificates should be renewed (ACME Renewal Information, RFC 9773). It moves that time for
// its own load, and into the past if it has revoked the certificate or is about to.

// Waits between two questions about one certificate.
const (
	askLeast   = 10 * time.Minute
	askUsually = 6 * time.Hour // if the authority names no time
	askMost    = 24 * time.Hour
	askRetry   = 5 * time.Minute // after the first failure
)

const maxExplanation = 300 // bytes

// Advice is the authority's answer about one certificate.
type Advice struct {
	// Start and End bound the time in which the authority wants the certificate to be renewed. Start is before End.
	Start, End time.Time
	// Page is a URL that explains the answer, or empty.
	Page string
}

// Asks reports whether the authority can be asked about the certificate of a host.
func Asks(wanted bool, s *carav1.CertificateOrder, directory string, now time.Time) bool {
	return wanted && len(s.GetSerial()) > 0 && len(s.GetAuthorityKeyId()) > 0 && s.GetCertificateDirectory() == directory && now.Before(s.GetNotAfter().AsTime())
}

// AskAgain returns the wait before the next question. named is the wait that the authority has named, or zero.
func AskAgain(named time.Duration) time.Duration {
	if named <= 0 {
		return askUsually
	}
	return min(max(named, askLeast), askMost)
}

// Advised returns the state of a host after an answer of the authority; old itself if the answer changes nothing. Hosts are spread
// over the window, always in the same way. A tenth of the life of a certificate is left for its renewal, whatever the authority says.
func Advised(old *carav1.CertificateOrder, a Advice, now time.Time) *carav1.CertificateOrder {
	host, from, to := old.GetMetadata().GetName(), old.GetNotBefore().AsTime(), old.GetNotAfter().AsTime()
	recalled := !a.End.After(now) && now.Before(RenewAt(host, from, to))
	if recalled && old.GetRecalled() {
		return old // the window of a revoked certificate can move with each answer
	}
	at := a.Start.Add(share(a.End.Sub(a.Start), host))
	if last := to.Add(-to.Sub(from) / 10); at.After(last) {
		at = last
	}
	next := proto.CloneOf(old)
	next.RenewAt, next.Recalled, next.RecallUrl = timestamppb.New(at.Truncate(time.Second)), recalled, ""
	if recalled {
		next.RecallUrl = explanation(a.Page)
	}
	if proto.Equal(next, old) {
		return old
	}
	return next
}

// explanation returns a URL that people can open, or "".
func explanation(page string) string {
	u, err := url.Parse(page)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	if page = u.String(); len(page) > maxExplanation { // String escapes what is not printable
		return ""
	}
	return page
}
