package apiserver

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestForgetLongestHost: what is stored about a host with the longest possible name can be removed, too.
func TestForgetLongestHost(t *testing.T) {
	c := newCluster(t, nil)
	conn, err := c.Client(api.RoleCerts)
	if err != nil {
		t.Fatal(err)
	}
	certificates, host := carav1.NewCertificateServiceClient(conn), strings.Repeat("a.", 124)+"tests"
	if len(host) != 253 {
		t.Fatalf("the host has %d characters", len(host))
	}
	_, err = certificates.UpdateCertificate(t.Context(), &carav1.UpdateCertificateRequest{Host: host, Order: &carav1.CertificateOrder{Problem: "no DNS record", BeforeOrder: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certificates.DeleteCertificate(t.Context(), &carav1.DeleteCertificateRequest{Host: host}); err != nil {
		t.Fatal(err)
	}
	left, err := certificates.ListCertificateOrders(t.Context(), &carav1.ListRequest{})
	if err != nil || len(left.GetItems()) != 0 {
		t.Errorf("left %v, %v", left.GetItems(), err)
	}
}
