package api

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// maxShownNames limits how many names of a certificate a status shows.
const maxShownNames = 100

// DescribeCertificate describes a certificate of a Secret for the host in out: its names and its end, or why it cannot be used. If
// it ends within soon, there is a warning.
func DescribeCertificate(out *carav1.HostCertificate, leaf *x509.Certificate, now time.Time, soon time.Duration) {
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case leaf.VerifyHostname(out.GetHost()) != nil:
		names := text.Line(text.Clip(strings.Join(leaf.DNSNames[:min(len(leaf.DNSNames), shownCertificates)], ", "), maxNamesText))
		out.Problem = fmt.Sprintf("the certificate of Secret %s is for %s and not for this host: request one with this name", out.GetSecretRef(), names)
	case now.Before(leaf.NotBefore):
		out.Problem = fmt.Sprintf("the certificate of Secret %s is valid from %s only: check the clocks, or wait", out.GetSecretRef(), leaf.NotBefore.UTC().Format(time.RFC3339))
	case !now.Before(leaf.NotAfter):
		out.Problem = fmt.Sprintf("the certificate of Secret %s expired at %s: put a new one into the Secret", out.GetSecretRef(), end)
	default:
		out.Names, out.NotAfter = leaf.DNSNames[:min(len(leaf.DNSNames), maxShownNames)], timestamppb.New(leaf.NotAfter)
		out.Issuer = text.Line(text.Clip(issuerName(leaf), maxNamesText))
		if leaf.NotAfter.Sub(now) < soon {
			out.Warning = fmt.Sprintf("it ends soon: put a new certificate into Secret %s", out.GetSecretRef())
		}
	}
}

// maxNamesText limits a text from a certificate, in bytes.
const maxNamesText = 500

func issuerName(leaf *x509.Certificate) string {
	if name := leaf.Issuer.CommonName; name != "" {
		return name
	}
	return strings.Join(leaf.Issuer.Organization, ", ")
}
