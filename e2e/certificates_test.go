package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testacme"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdns"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// acmeCluster is a cluster with one agent that obtains certificates from a real authority. directory chooses the URL of the
// authority.
func acmeCluster(t *testing.T, directory func(*testacme.Authority) string) (*internet, *testacme.Authority) {
	return acmeClusterAt(t, "", directory)
}

// acmeClusterAt is acmeCluster with the address of a DNS server for the authority, and with more flags of the server.
func acmeClusterAt(t *testing.T, dns string, directory func(*testacme.Authority) string, flags ...string) (*internet, *testacme.Authority) {
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
	ca := testacme.StartAt(t, port, dns)
	w := newWorld(t, options{serverFlags: append(flags,
		"--acme-email", "ops@example.com", "--acme-directory", directory(ca), "--acme-ca", ca.RootsFile, "--acme-resolver", ca.DNS)})
	w.agent("n1", host, nil, "--public-http", i.http, "--public-https", i.https, "--public-address", "127.0.0.1")
	i.testCluster, i.roots = w, ca.Roots()
	return i, ca
}

// autoTLS returns a project whose public host has a certificate of the authority.
func autoTLS(name string) string {
	return project(name, `
services:
- name: web
  image: `+testimage.WebV1+`
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}
  access: {scope: Public}
`)
}

// TestCertificates: a project with a public host gets a certificate from the authority. The certificate is kept when the server
// is killed, and when the server is restored from a backup on an empty disk and no agent has the certificate any more.
func TestCertificates(t *testing.T) {
	i, ca := acmeCluster(t, func(ca *testacme.Authority) string { return ca.Directory })
	w := i.testCluster
	shop := w.name("shop")
	ca.Lead(shop+".test", "127.0.0.1")
	w.apply(autoTLS(shop))
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

	file := filepath.Join(t.TempDir(), "cara.tar")
	w.succeeds("backup", "server", file)
	w.must(w.Agents["n1"].Kill())
	w.must(w.Server.Kill())
	ca.Down() // whoever asks it for a certificate gets none
	w.must(os.Rename(w.DataDir(), w.DataDir()+".lost"))
	w.must(os.Mkdir(w.DataDir(), 0o700))
	if out, err := exec.CommandContext(ctx, "tar", "-xf", file, "-C", w.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("unpack the backup: %v %s", err, out)
	}
	w.must(w.StartServer(ctx))
	w.must(os.Remove(filepath.Join(w.Dir, "agent-n1", "credentials.json")))
	w.must(w.RestartAgent("n1"))
	w.ready("n1")
	i.gets(i.client(true), "https://"+shop+".test/", 200, "web v1")
	if now, err := i.serial(shop + ".test"); err != nil || now != before {
		t.Errorf("after the restore the certificate is %s, not %s (%v)", now, before, err)
	}
}

// TestServerKilledInAnOrder: the server is killed while it waits for each kind of answer of the authority. The next start
// obtains the certificate.
func TestServerKilledInAnOrder(t *testing.T) {
	var front *testacme.Front
	i, ca := acmeCluster(t, func(ca *testacme.Authority) string {
		front = ca.Front()
		return front.Directory
	})
	for n, path := range []string{"/sign-me-up", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"} {
		held := front.Hold(path)
		shop := i.name(fmt.Sprintf("shop%d", n))
		ca.Lead(shop+".test", "127.0.0.1")
		i.apply(autoTLS(shop))
		ctx, cancel := i.patience()
		select {
		case <-held:
		case <-ctx.Done():
			t.Fatalf("no request for %s: %s", path, i.ctl("", "describe", "project", shop).Stdout)
		}
		i.must(i.Server.Kill())
		i.must(i.StartServer(ctx))
		cancel()
		ctx, cancel = i.patience()
		i.must(testcluster.WaitFor(ctx, "there is a certificate after a crash at "+path, func(context.Context) error {
			_, err := i.serial(shop + ".test")
			return err
		}))
		cancel()
	}
}

// TestWildcard: with records that a DNS server takes as updates, the hosts of two projects share one certificate.
func TestWildcard(t *testing.T) {
	dns := testdns.Start(t)
	secret := filepath.Join(t.TempDir(), "tsig")
	if err := os.WriteFile(secret, []byte(testdns.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	i, ca := acmeClusterAt(t, dns.Addr, func(ca *testacme.Authority) string { return ca.Directory },
		"--base-domain", "test", "--environment", "dev", "--acme-wildcard", "--acme-dns", "rfc2136", "--acme-dns-server", dns.Addr,
		"--acme-dns-tsig-name", testdns.KeyName, "--acme-dns-tsig-secret-file", secret, "--acme-dns-check", dns.Addr)
	names := []string{i.name("one"), i.name("two")}
	for _, name := range names {
		dns.Lead(name+".dev.test", "127.0.0.1")
		i.apply(strings.ReplaceAll(autoTLS(name), name+".test", name))
	}
	for _, name := range names {
		i.running(name)
		i.gets(i.client(true), "https://"+name+".dev.test/", 200, "web v1")
		i.says("describe", i.ctl("", "describe", "project", name).Stdout, "CertificateReady", name+".dev.test: valid until")
	}
	one, err := i.serial(names[0] + ".dev.test")
	i.must(err)
	if two, err := i.serial(names[1] + ".dev.test"); err != nil || two != one || strings.Count(ca.Log(), "Issued certificate serial") != 1 {
		t.Errorf("the hosts have the certificates %s and %s (%v); the authority says:\n%s", one, two, err, ca.Log())
	}
}
