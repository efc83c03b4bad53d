package program

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecretFile limits the size of a file with a key or a password, in bytes.
const maxSecretFile = 4 << 10

// readSecret returns the text of the file that a flag names. No error has a part of it.
func readSecret(flag, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	if len(text) > maxSecretFile {
		return "", fmt.Errorf("%s: %s has more than %d bytes: give a file with nothing else in it", flag, path, maxSecretFile)
	}
	return strings.TrimSpace(string(text)), nil
}

// readRoots returns the certificates in the PEM file that a flag names, or nil without a file.
func readRoots(flag, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s %s has no certificate in PEM", flag, path)
	}
	return pool, nil
}
