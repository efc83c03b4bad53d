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
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// maxMessage limits one answer. A list of thousands of projects fits.
const maxMessage = 256 << 20

const (
	maxServers = 16
	scheme     = "cara" // of the targets whose addresses are those of servers
)

// Dial returns a connection to the server of a context, or to the first one of several that answers. It opens no socket
// before the first call. When the connection breaks, the next call connects again.
func Dial(c Context) (*grpc.ClientConn, error) {
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	secure, creds, err := c.transport(servers)
	if err != nil {
		return nil, err
	}
	addresses := manual.NewBuilderWithScheme(scheme)
	var all resolver.State
	for _, u := range servers {
		all.Addresses = append(all.Addresses, resolver.Address{Addr: hostPort(u), ServerName: hostPort(u)})
	}
	addresses.InitialState(all)
	conn, err := grpc.NewClient(scheme+":///"+hostPort(servers[0]),
		grpc.WithResolvers(addresses),
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

// servers returns the URLs of the context's servers.
func (c Context) servers() ([]*url.URL, error) {
	var all []*url.URL
	for text := range strings.SplitSeq(Address(c.Server), ",") {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
			return nil, fmt.Errorf("server %q is not an address such as https://cara.example.com:8080", text)
		case len(all) > 0 && u.Scheme != all[0].Scheme:
			return nil, fmt.Errorf("servers %s: use https for all of them or http for all of them", c.Server)
		}
		all = append(all, u)
	}
	if len(all) > maxServers {
		return nil, fmt.Errorf("%d servers are given: give at most %d", len(all), maxServers)
	}
	return all, nil
}

// Address completes the address of a server, or each one in a list that is separated by commas: `host:port` becomes http on
// loopback, where the server accepts it, and https elsewhere. Other addresses do not change.
func Address(server string) string {
	all := strings.Split(server, ",")
	for i, one := range all {
		all[i] = complete(strings.TrimSpace(one))
	}
	return strings.Join(all, ",")
}

func complete(server string) string {
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
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("the token file %s is empty: put your token into it, or name another file", c.TokenFile)
	}
	return token, nil
}

func (c Context) transport(servers []*url.URL) (secure bool, creds credentials.TransportCredentials, err error) {
	if servers[0].Scheme == "http" {
		for _, u := range servers {
			if !loopback(u.Hostname()) {
				return false, nil, fmt.Errorf("server %s: a token is sent over plain http to this machine only; use https", u)
			}
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
