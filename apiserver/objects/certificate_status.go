package objects

import (
	"cmp"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// setCertificates sets the certificates in the status of a project, and the condition about them, from the spec and from the
// Secrets. p is the transaction's own copy.
func setCertificates(t *state.Tx, p *carav1.Project) {
	var all []*carav1.HostCertificate
	for _, in := range p.GetSpec().GetIngress() {
		host := t.Hosts.Template.Host(in.GetHost())
		known := slices.ContainsFunc(all, func(c *carav1.HostCertificate) bool { return c.GetHost() == host })
		switch {
		case known || !api.Public(in):
		case in.GetTls().GetSecretRef() != "":
			all = append(all, fromSecret(t, host, in.GetTls().GetSecretRef()))
		case api.AutoTLS(in):
			all = append(all, obtained(host))
		}
	}
	slices.SortFunc(all, func(a, b *carav1.HostCertificate) int { return cmp.Compare(a.GetHost(), b.GetHost()) })
	p.Status.Certificates = all
	if c := api.CertificateCondition(all); c != nil {
		setCondition(t, p, c)
		return
	}
	p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
}

// obtained describes the certificate of a host that the server obtains.
func obtained(host string) *carav1.HostCertificate {
	return &carav1.HostCertificate{
		Host:    host,
		Problem: "this server obtains no certificates: use a Secret of type tls with tls.secretRef, or set tls.mode: Off to serve the host over HTTP only",
	}
}
