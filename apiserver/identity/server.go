package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// ServerName is in every server certificate. Agents verify this name whatever address they dial, since they trust only the
// cluster's authority. So a server that moves to another host or name needs no new certificate.
const ServerName = "cara-server"

const (
	serverLifetime = 30 * 24 * time.Hour
	serverRenew    = 20 * 24 * time.Hour
)

// serverCertificate creates the server's certificate at its first use and renews it long before it expires. The key is only
// in memory, so it cannot leak from disk, and the certificate always has the names of the current configuration. When the
// clock has been set, the certificate is valid by the new time: a machine often starts its services before its clock is right.
type serverCertificate struct {
	ca     *authority
	names  []string
	usage  x509.ExtKeyUsage
	now    func() time.Time
	logger *slog.Logger

	mu       sync.Mutex
	current  *tls.Certificate
	issuedAt time.Time
	renewAt  time.Time
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().Round(0) // without the monotonic reading, which does not know that the clock was set
	if s.current != nil && !now.Before(s.issuedAt) && now.Before(s.renewAt) {
		return s.current, nil
	}
	cert, err := s.issue(now)
	if err != nil {
		return nil, fmt.Errorf("issue the server certificate: %w", err)
	}
	s.current, s.issuedAt, s.renewAt = cert, now, now.Add(serverRenew)
	s.logger.Info("issued server certificate", "names", s.names, "until", cert.Leaf.NotAfter)
	return cert, nil
}

func (s *serverCertificate) issue(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: ServerName},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(serverLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{s.usage},
	}
	for _, name := range s.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := s.ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The chain includes the authority, so that a joining agent can compare it with the hash in its token.
	return &tls.Certificate{Certificate: [][]byte{der, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// ServerNames returns the names and addresses of the server's certificate.
func (i *Identity) ServerNames() []string { return slices.Clone(i.leaf.names) }

// serverNames returns the names and addresses by which clients may reach the server. A wildcard listen address means every
// address of this machine.
func serverNames(listen string, more []string) ([]string, error) {
	names := []string{ServerName, "localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	if listen != "" {
		host, _, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, err
		}
		ip := net.ParseIP(host)
		switch {
		case host == "" || ip != nil && ip.IsUnspecified():
			addresses, err := net.InterfaceAddrs()
			if err != nil {
				return nil, fmt.Errorf("list this machine's addresses: %w", err)
			}
			for _, a := range addresses {
				if n, ok := a.(*net.IPNet); ok {
					names = append(names, n.IP.String())
				}
			}
		default:
			names = append(names, host)
		}
	}
	names = append(names, more...)
	return slices.Compact(slices.Sorted(slices.Values(names))), nil
}

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
