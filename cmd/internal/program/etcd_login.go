package program

import (
	"crypto/tls"
	"sync"
)

// loginCertificate is the certificate with which the server logs in to etcd. It is read again for each connection, so a renewed one needs
// no restart.
type loginCertificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
}

// read reads the files. After an error, the certificate is the earlier one.
func (l *loginCertificate) read() error {
	cert, err := tls.LoadX509KeyPair(l.certFile, l.keyFile)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = &cert
	return nil
}

// get returns the newest certificate that could be read: the two files may be from before and after a renewal that is not finished.
func (l *loginCertificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_ = l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, nil
}
