package join

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/caravanserai/cara/api"
)

const (
	fileName    = "identity.json"
	maxIdentity = 256 << 10
)

// identity is the identity of a node. Immutable.
type identity struct {
	node      string
	clusterID string
	cert      tls.Certificate // with Leaf
	roots     *x509.CertPool
	caHash    string
}

// stored is the file format of an identity: PEM in JSON.
type stored struct {
	Node        string `json:"node"`
	ClusterID   string `json:"clusterId"`
	Key         string `json:"key"`
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
}

// newKey generates a key and a certificate request for it.
func newKey(node string) (keyPEM, request []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: api.PrefixNode + node}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// parse checks that the parts match: the key belongs to the certificate, and the CA has signed it.
func (s stored) parse() (*identity, error) {
	cert, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Key))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(s.CA))
	if block == nil {
		return nil, errors.New("the authority's certificate is missing")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := cert.Leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the certificate is not the authority's: %w", err)
	}
	if want := api.PrefixNode + s.Node; cert.Leaf.Subject.CommonName != want {
		return nil, fmt.Errorf("the certificate is for %q and not for %q", cert.Leaf.Subject.CommonName, want)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &identity{node: s.Node, clusterID: s.ClusterID, cert: cert, roots: roots, caHash: hashOf(ca)}, nil
}

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// renewAt returns when half of the certificate's lifetime has passed.
func (i *identity) renewAt() time.Time {
	leaf := i.cert.Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// load reads the identity in dir, or returns nil if there is none.
func load(dir string) (*identity, error) {
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no identity yet is no error
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %#o): make it private with chmod 600", path, info.Mode().Perm())
	}
	if info.Size() > maxIdentity {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not a file of this program", path, maxIdentity)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s stored
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("read %s: %w: remove it to join again", path, err)
	}
	id, err := s.parse()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: remove it to join again", path, err)
	}
	return id, nil
}

func (s stored) save(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, fileName), append(text, '\n'), 0o600)
}
