package api

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// Keys of a Secret of type tls, as in Kubernetes.
const (
	TLSCertificateKey = "tls.crt"
	TLSPrivateKey     = "tls.key"
)

// Limits of a certificate. An agent does a part of the work of each handshake with the key, so its size is limited too.
const (
	maxTLSValue = 64 << 10
	maxTLSChain = 10
	minRSABits  = 2048
	maxRSABits  = 4096
	maxTLSNames = 1000
)

// ParseCertificate checks a certificate with its chain and its private key, all in PEM, and returns the first certificate. Errors
// contain no part of the values.
func ParseCertificate(chain, key []byte) (*tls.Certificate, error) {
	if len(chain) > maxTLSValue || len(key) > maxTLSValue {
		return nil, fmt.Errorf("the certificates or the key have more than %d KiB; leave out what does not belong to the chain", maxTLSValue>>10)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, pairProblem(chain, key)
	}
	if n := len(pair.Certificate); n > maxTLSChain {
		return nil, fmt.Errorf("the chain has %d certificates, at most %d are allowed; leave out what does not belong to it", n, maxTLSChain)
	}
	leaf := pair.Leaf
	if leaf == nil {
		return nil, errors.New("the first certificate cannot be parsed")
	}
	switch n := len(leaf.DNSNames); {
	case n == 0:
		return nil, errors.New("the certificate has no DNS name as a subject alternative name, so clients accept it for no host; request a certificate with the names of the hosts")
	case n > maxTLSNames:
		return nil, fmt.Errorf("the certificate has %d names, at most %d are allowed; divide them among several certificates", n, maxTLSNames)
	}
	return &pair, keyProblem(leaf)
}

// pairProblem explains why certificates and a key cannot be used, without the text of the library, which could quote them.
func pairProblem(chain, key []byte) error {
	block := func(data []byte, kind string) bool {
		return strings.Contains(string(data), "-----BEGIN ") && strings.Contains(string(data), kind+"-----")
	}
	switch {
	case !block(chain, "CERTIFICATE"):
		return fmt.Errorf("%s has no certificate in PEM; it must begin with -----BEGIN CERTIFICATE-----", TLSCertificateKey)
	case strings.Contains(string(key), "ENCRYPTED"):
		return fmt.Errorf("%s is encrypted with a passphrase; decrypt it first, for example with openssl pkey", TLSPrivateKey)
	case !block(key, "PRIVATE KEY"):
		return fmt.Errorf("%s has no private key in PEM; it must begin with -----BEGIN PRIVATE KEY-----", TLSPrivateKey)
	}
	return fmt.Errorf("%s and %s do not match, or one of them is damaged; the first certificate must belong to the key, and its issuers follow it", TLSCertificateKey, TLSPrivateKey)
}

func keyProblem(leaf *x509.Certificate) error {
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("the RSA key has %d bits; it must have between %d and %d", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return errors.New("the key is neither RSA, ECDSA nor Ed25519; use one of them")
	}
	return nil
}
