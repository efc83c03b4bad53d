package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"
)

func request(t *testing.T, key crypto.Signer, cn string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignNode(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := open(t, t.TempDir(), func() time.Time { return now })
	// The certificate is for the node that the server specifies, whatever the request says.
	text, made, err := id.SignNode(request(t, ecdsaKey(t, elliptic.P256()), "node/other"), "n1")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	got, ok, err := id.PeerNode(state)
	if err != nil || !ok || got.Node != "n1" || !HashMatches(got.Hash, made.Hash) || got.TokenName() != made.TokenName() {
		t.Errorf("PeerNode: %+v %v %v, want %+v", got, ok, err, made)
	}
	if !strings.HasPrefix(got.TokenName(), NodeTokenPrefix("n1")) || strings.HasPrefix(got.TokenName(), NodeTokenPrefix("n")) {
		t.Errorf("token name %s", got.TokenName())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(id.CAPEM())
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err == nil {
		t.Error("a node's certificate passes for a server's")
	}

	unverified := &tls.ConnectionState{PeerCertificates: state.PeerCertificates}
	if _, ok, err := id.PeerNode(unverified); ok || !errors.Is(err, ErrCertificate) {
		t.Errorf("not verified: %v %v", ok, err)
	}
	server, err := id.leaf.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	notNode := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{server.Leaf}, VerifiedChains: [][]*x509.Certificate{{server.Leaf}}}
	if _, ok, err := id.PeerNode(notNode); ok || !errors.Is(err, ErrCertificate) {
		t.Errorf("not a node's: %v %v", ok, err)
	}
	if _, ok, err := id.PeerNode(nil); ok || err != nil {
		t.Errorf("no TLS: %v %v", ok, err)
	}
	now = now.Add(NodeLifetime + time.Second)
	if _, ok, err := id.PeerNode(state); ok || !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "join token") {
		t.Errorf("ended: %v %v", ok, err)
	}
}

func TestSignNodeRefuses(t *testing.T) {
	id := open(t, t.TempDir(), nil)
	good := request(t, ecdsaKey(t, elliptic.P256()), "x")
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := id.SignNode(request(t, edKey, "x"), "n1"); err != nil {
		t.Errorf("an Ed25519 key: %v", err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	for name, text := range map[string][]byte{
		"empty":           nil,
		"not PEM":         []byte("hello"),
		"other block":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"two blocks":      append(append([]byte(nil), good...), good...),
		"not DER":         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}),
		"forged":          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}),
		"small RSA key":   request(t, small, "x"),
		"small ECDSA key": request(t, ecdsaKey(t, elliptic.P224()), "x"),
		"large ECDSA key": request(t, ecdsaKey(t, elliptic.P521()), "x"),
	} {
		if _, _, err := id.SignNode(text, "n1"); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
