package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// NodeLifetime is how long a node's certificate is valid. The agent renews it after half of that time.
const NodeLifetime = 30 * 24 * time.Hour

var (
	// ErrRequest means that a certificate request cannot be signed.
	ErrRequest = errors.New("certificate request refused")
	// ErrCertificate means that a client certificate is not a node's or has expired.
	ErrCertificate = errors.New("client certificate refused")
)

// NodeCertificate is what the server stores about a node's certificate.
type NodeCertificate struct {
	// Node is the name of the node.
	Node string
	// Hash is the SHA-256 of the certificate in DER.
	Hash []byte
	// NotAfter is when the certificate expires.
	NotAfter time.Time
}

// TokenName is the name under which the certificate's hash is stored. No other token can have it, because names of other
// tokens contain no dot.
func (c NodeCertificate) TokenName() string {
	return NodeTokenPrefix(c.Node) + hex.EncodeToString(c.Hash[:8])
}

// NodeTokenPrefix begins the TokenName of every certificate of a node, and only of that node: node names contain no dot.
func NodeTokenPrefix(node string) string { return "node." + node + "." }

// NodeOfToken returns the node whose certificate a token with this name represents; ok is false for every other token.
func NodeOfToken(name string) (node string, ok bool) {
	rest, ok := strings.CutPrefix(name, "node.")
	if !ok {
		return "", false
	}
	node, _, ok = strings.Cut(rest, ".")
	return node, ok
}

// NotBefore returns the start of a node certificate that ends at notAfter.
func NotBefore(notAfter time.Time) time.Time {
	return notAfter.Add(-NodeLifetime - skew).Truncate(time.Second)
}

// SignNode signs a PEM certificate request and returns the node's certificate in PEM. The certificate gets the given name,
// whatever the request asks for. The error is ErrRequest if the request is malformed, is not signed by its own key, or has
// a weak key.
func (i *Identity) SignNode(request []byte, node string) ([]byte, NodeCertificate, error) {
	public, err := checkRequest(request)
	if err != nil {
		return nil, NodeCertificate{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	now := i.now()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: api.PrefixNode + node},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(NodeLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := i.ca.sign(template, public)
	if err != nil {
		return nil, NodeCertificate{}, fmt.Errorf("sign the certificate of node %s: %w", node, err)
	}
	sum := sha256.Sum256(der)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		NodeCertificate{Node: node, Hash: sum[:], NotAfter: template.NotAfter}, nil
}

func checkRequest(text []byte) (any, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("one PEM block CERTIFICATE REQUEST is expected")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	// The size is checked before the signature, because a huge key makes the signature check expensive.
	if err := checkKey(request.PublicKey); err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, errors.New("it is not signed by its own key")
	}
	return request.PublicKey, nil
}

func checkKey(public any) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if bits := key.Params().BitSize; bits < 256 || bits > 384 {
			return fmt.Errorf("an ECDSA key of %d bits: use P-256 or P-384", bits)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("an RSA key of %d bits: use 2048 to 4096", bits)
		}
	default:
		return errors.New("use an ECDSA, Ed25519 or RSA key")
	}
	return nil
}

// PeerNode returns the node certificate of a connection; ok is false if the client presented none. The TLS handshake has
// verified the authority's signature. PeerNode checks the expiry again, because a connection can outlive the certificate.
// The caller must check that the cluster still accepts the certificate.
func (i *Identity) PeerNode(state *tls.ConnectionState) (cert NodeCertificate, ok bool, err error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return NodeCertificate{}, false, nil
	}
	leaf := state.PeerCertificates[0]
	node, isNode := strings.CutPrefix(leaf.Subject.CommonName, api.PrefixNode)
	if len(state.VerifiedChains) == 0 || !isNode || node == "" {
		return NodeCertificate{}, false, fmt.Errorf("%w: it is not a node's certificate of this cluster", ErrCertificate)
	}
	if now := i.now(); now.After(leaf.NotAfter) {
		return NodeCertificate{}, false, fmt.Errorf("%w: it ended at %s: join node %s again with a join token",
			ErrCertificate, leaf.NotAfter.Format(time.RFC3339), node)
	}
	sum := sha256.Sum256(leaf.Raw)
	return NodeCertificate{Node: node, Hash: sum[:], NotAfter: leaf.NotAfter}, true, nil
}
