package identity

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// PeerTLSConfig returns the configuration for a connection to another server of the cluster, with one protocol of ALPN. Both
// sides show a certificate of the cluster's authority.
func (i *Identity) PeerTLSConfig(protocol string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(i.ca.cert)
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{protocol},
		ServerName:           ServerName,
		RootCAs:              pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.peer.get(nil) },
		Time:                 i.now,
	}
}

// PeerServer reports whether the client of a connection is a server of the cluster. The certificates of nodes have other
// names, and that of a server's address cannot be used by a client.
func PeerServer(state *tls.ConnectionState) bool {
	if len(state.VerifiedChains) == 0 {
		return false
	}
	leaf := state.PeerCertificates[0]
	return leaf.Subject.CommonName == ServerName && slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}
