package validate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// pair makes a certificate for names that signs itself, and its key.
func pair(t *testing.T, key any, public any, names ...string) (chain, private string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

func ecPair(t *testing.T, names ...string) (chain, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair(t, key, key.Public(), names...)
}

func TestTLSSecret(t *testing.T) {
	chain, key := ecPair(t, "a.test")
	_, other := ecPair(t, "a.test")
	nameless, namelessKey := ecPair(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, weakKey := pair(t, small, small.Public(), "a.test")
	long := strings.Repeat("# comment\n", 7000)
	for name, tt := range map[string]struct {
		data map[string]string
		want []string
	}{
		"a pair":            {map[string]string{"tls.crt": chain, "tls.key": key}, nil},
		"a chain":           {map[string]string{"tls.crt": chain + chain, "tls.key": key}, nil},
		"no key":            {map[string]string{"tls.crt": chain}, []string{"stringData[tls.key]: is required in a Secret of type tls"}},
		"one key more":      {map[string]string{"tls.crt": chain, "tls.key": key, "ca.crt": chain}, []string{"data: has a key that a Secret of type tls cannot have; allowed are tls.crt, tls.key"}},
		"another key":       {map[string]string{"tls.crt": chain, "tls.key": other}, []string{"stringData: tls.crt and tls.key do not match"}},
		"exchanged":         {map[string]string{"tls.crt": key, "tls.key": chain}, []string{"stringData: tls.crt has no certificate in PEM"}},
		"no PEM key":        {map[string]string{"tls.crt": chain, "tls.key": "hidden text"}, []string{"stringData: tls.key has no private key in PEM"}},
		"with a passphrase": {map[string]string{"tls.crt": chain, "tls.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"}, []string{"stringData: tls.key is encrypted with a passphrase"}},
		"no names":          {map[string]string{"tls.crt": nameless, "tls.key": namelessKey}, []string{"stringData: the certificate has no DNS name"}},
		"a small key":       {map[string]string{"tls.crt": weak, "tls.key": weakKey}, []string{"stringData: the RSA key has 1024 bits"}},
		"a long chain":      {map[string]string{"tls.crt": strings.Repeat(chain, 11), "tls.key": key}, []string{"stringData: the chain has 11 certificates, at most 10"}},
		"much text":         {map[string]string{"tls.crt": chain + long, "tls.key": key}, []string{"stringData: the certificates or the key have more than 64 KiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := secretOf(api.SecretTLS, tt.data)
			check(t, s, tt.want...)
			quotesNothing(t, s)
		})
	}
}

func secretOf(kind string, data map[string]string) *carav1.Secret {
	return &carav1.Secret{ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "s"}, Type: kind, StringData: data}
}

// quotesNothing fails if a message contains a line of a value, other than the lines around a PEM block.
func quotesNothing(t *testing.T, s *carav1.Secret) {
	t.Helper()
	for _, e := range validate.Object(s) {
		for _, value := range s.GetStringData() {
			for line := range strings.Lines(value) {
				if part := strings.TrimSpace(line); !strings.HasPrefix(part, "-----") && strings.Contains(e.GetMessage(), part) {
					t.Errorf("a message quotes %q: %s", part, e.GetMessage())
				}
			}
		}
	}
}

func TestBasicAuthSecret(t *testing.T) {
	const hash = "$2y$05$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	var many strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&many, "u%d:%s\n", i, hash)
	}
	for name, tt := range map[string]struct{ users, want string }{
		"two users":       {"ann:" + hash + "\n# people\n\nbob:" + hash + "\r\n", ""},
		"nobody":          {"# people\n", "it has no user"},
		"no colon":        {"ann\n", "line 1 has no colon"},
		"no name":         {":" + hash, "line 1 has an invalid user name"},
		"a control":       {"a\tb:" + hash, "line 1 has an invalid user name"},
		"twice":           {"ann:" + hash + "\nann:" + hash, "line 2 has the same user name"},
		"a plain text":    {"ann:" + hash + "\nbob:correct horse", "line 2 has no bcrypt hash"},
		"MD5":             {"ann:$apr1$JkpLYIr1$2ObnJmhL5N5dZmP1j4Nva/", "line 1 has no bcrypt hash"},
		"too expensive":   {"ann:" + strings.Replace(hash, "$05$", "$15$", 1), "line 1 has the bcrypt cost 15; it must be between 4 and 14"},
		"too cheap":       {"ann:" + strings.Replace(hash, "$05$", "$03$", 1), "line 1 has the bcrypt cost 3"},
		"more after it":   {"ann:" + hash + ":admin", "line 1 has no bcrypt hash"},
		"a thousand more": {many.String(), "it has more than 1000 users"},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			if tt.want != "" {
				want = []string{"stringData[users]: cannot be used for passwords: " + tt.want}
			}
			s := secretOf(api.SecretBasicAuth, map[string]string{"users": tt.users})
			check(t, s, want...)
		})
	}
}
