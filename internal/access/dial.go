package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// maxMessage limits one answer. A list of thousands of projects fits.
const maxMessage = 256 << 20

// Dial returns a connection to the server of a context. It opens no socket before the first call.
func Dial(c Context) (*grpc.ClientConn, error) {
	u, err := url.Parse(Address(c.Server))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("server %q is not an address such as https://cara.example.com:8080", c.Server)
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	secure, creds, err := c.transport(u)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+hostPort(u),
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(bearer{token, secure}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.Server, err)
	}
	return conn, nil
}

// Address completes the address of a server: `host:port` becomes http on loopback, where the server accepts it, and https
// elsewhere. Other addresses do not change.
func Address(server string) string {
	host, _, err := net.SplitHostPort(server)
	switch {
	case err != nil || strings.Contains(server, "/"):
		return server
	case loopback(host):
		return "http://" + server
	}
	return "https://" + server
}

func (c Context) token() (string, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (c Context) transport(u *url.URL) (secure bool, creds credentials.TransportCredentials, err error) {
	if u.Scheme == "http" {
		if !loopback(u.Hostname()) {
			return false, nil, fmt.Errorf("server %s: a token is sent over plain http to this machine only; use https", c.Server)
		}
		return false, insecure.NewCredentials(), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(c.CA)) {
			return true, nil, errors.New("the context's certificate authority is no PEM certificate")
		}
	}
	return true, credentials.NewTLS(cfg), nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "https" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return net.JoinHostPort(u.Hostname(), "80")
}

type bearer struct {
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b.token == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }
