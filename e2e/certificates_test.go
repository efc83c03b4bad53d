package e2e

import (
	"net"
	"strconv"
	"testing"

	"github.com/caravanserai/cara/internal/test/testacme"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestCertificates: a project with a public host gets a certificate from the authority, and keeps it when the server is killed
// and starts again.
func TestCertificates(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	i := &internet{}
	for _, at := range []*string{&i.http, &i.https} {
		var err error
		if *at, err = testcluster.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	_, text, err := net.SplitHostPort(i.http)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	ca := testacme.Start(t, port)
	w := newWorld(t, options{serverFlags: []string{
		"--acme-email", "ops@example.com", "--acme-directory", ca.Directory, "--acme-ca", ca.RootsFile, "--acme-resolver", ca.DNS,
	}})
	w.agent("n1", host, nil, "--public-http", i.http, "--public-https", i.https, "--public-address", "127.0.0.1")
	i.testCluster, i.roots = w, ca.Roots()

	shop := w.name("shop")
	ca.Lead(shop+".test", "127.0.0.1")
	w.apply(project(shop, `
services:
- name: web
  image: `+testimage.WebV1+`
ingress:
- name: web
  host: `+shop+`.test
  target: {service: web, port: 8080}
  access: {scope: Public}
`))
	w.running(shop)
	i.gets(i.client(true), "https://"+shop+".test/", 200, "web v1")
	w.says("describe", w.ctl("", "describe", "project", shop).Stdout, "CertificateReady", "Pebble Intermediate CA", "CertificateIssued")

	before, err := i.serial(shop + ".test")
	w.must(err)
	w.must(w.Server.Kill())
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartServer(ctx))
	w.ready("n1")
	if now, err := i.serial(shop + ".test"); err != nil || now != before {
		t.Errorf("after a restart of the server the certificate is %s, not %s (%v)", now, before, err)
	}
}
