package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// shownCertificates limits how many hosts a condition describes.
const shownCertificates = 5

const maxCertificateMessage = 2000 // bytes

// CertificateCondition returns the condition CertificateReady of a project with these certificates, or nil if it needs none.
// Hosts with a problem come first, then hosts with a warning.
func CertificateCondition(certificates []*carav1.HostCertificate) *carav1.Condition {
	if len(certificates) == 0 {
		return nil
	}
	all := slices.Clone(certificates)
	slices.SortStableFunc(all, func(a, b *carav1.HostCertificate) int { return cmp.Compare(urgency(b), urgency(a)) })
	status, reason := StatusTrue, Reason(ReasonCertificateValid)
	if all[0].GetProblem() != "" {
		status, reason = StatusFalse, ReasonCertificateMissing
		all = slices.DeleteFunc(all, func(c *carav1.HostCertificate) bool { return c.GetProblem() == "" })
	}
	lines := make([]string, 0, shownCertificates)
	for _, c := range all[:min(len(all), shownCertificates)] {
		lines = append(lines, certificateLine(c))
	}
	message := strings.Join(lines, "; ")
	if n := len(all) - shownCertificates; n > 0 {
		message += fmt.Sprintf("; and %s", text.Count(n, "more host"))
	}
	return NewCondition(CondCertificateReady, status, reason, text.Clip(message, maxCertificateMessage))
}

func urgency(c *carav1.HostCertificate) int {
	switch {
	case c.GetProblem() != "":
		return 2
	case c.GetWarning() != "":
		return 1
	}
	return 0
}

func certificateLine(c *carav1.HostCertificate) string {
	if c.GetProblem() != "" {
		return c.GetHost() + ": " + c.GetProblem()
	}
	line := fmt.Sprintf("%s: valid until %s, from %s", c.GetHost(), c.GetNotAfter().AsTime().UTC().Format(time.RFC3339), cmp.Or(c.GetIssuer(), "an unnamed issuer"))
	if c.GetWarning() != "" {
		line += " (" + c.GetWarning() + ")"
	}
	return line
}
