package etcd

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"
)

const (
	maxEndpoints = 16
	maxPrefix    = 64 // so that the largest transaction stays below etcd's default limit of 1.5 MiB

	defaultPrefix  = "/cara/"
	defaultTimeout = 10 * time.Second // above the 7 s that an etcd member waits for its leader
	defaultHistory = 10 * time.Minute
	defaultLease   = 6 * time.Second // above the time in which etcd elects a leader; another server runs the loops after it
)

// Config configures where the store is.
type Config struct {
	// Endpoints are the client URLs of etcd's members: https://HOST:PORT, or http:// on loopback.
	Endpoints []string
	// Prefix begins every key. It begins and ends with a slash; empty is /cara/.
	Prefix string
	// TLS has the certificate authority and the client certificate for https endpoints; nil uses the system's authorities.
	TLS *tls.Config
	// Username and Password log in if etcd requires that.
	Username, Password string
	// Timeout limits a request to etcd; 0 is 10 s.
	Timeout time.Duration
	// History is how long the change log is kept; 0 is 10 minutes.
	History time.Duration
	// Lease is how long a lease outlives a holder that does not answer; 0 is 6 s. etcd allows whole seconds.
	Lease time.Duration
	// Importing opens a prefix with an incomplete import, so that Import can begin again.
	Importing bool
	// Logger gets the log lines; nil logs nothing.
	Logger *slog.Logger
}

// Validate returns an error if c is not usable.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 || len(c.Endpoints) > maxEndpoints {
		return fmt.Errorf("%d etcd endpoints are given: give 1 to %d client URLs of etcd members, such as https://10.0.0.1:2379", len(c.Endpoints), maxEndpoints)
	}
	secure := 0
	for _, endpoint := range c.Endpoints {
		https, err := checkEndpoint(endpoint)
		if err != nil {
			return err
		}
		if https {
			secure++
		}
	}
	prefix := cmp.Or(c.Prefix, defaultPrefix)
	switch {
	case secure != 0 && secure != len(c.Endpoints):
		return errors.New("etcd endpoints: use https for all of them or http for all of them")
	case secure == 0 && c.TLS != nil:
		return errors.New("etcd endpoints: a certificate is given for etcd, so the endpoints must begin with https://")
	case !strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/") || len(prefix) < 2 || len(prefix) > maxPrefix:
		return fmt.Errorf("etcd prefix %.80q: want a name between two slashes, such as /cara/, with at most %d bytes", prefix, maxPrefix)
	case (c.Username == "") != (c.Password == ""):
		return errors.New("etcd login: give both the user and the password")
	case c.Timeout < 0, c.History < 0, c.Lease < 0:
		return errors.New("etcd: time limits must not be negative")
	}
	return nil
}

// checkEndpoint reports whether an endpoint uses TLS. Messages do not repeat the endpoint if it may contain a password.
func checkEndpoint(endpoint string) (https bool, err error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.User != nil {
		return false, errors.New("etcd endpoint: want https://HOST:PORT without a user; --etcd-user gives the user")
	}
	if u.Port() == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" {
		return false, fmt.Errorf("etcd endpoint %.100q: want https://HOST:PORT", endpoint)
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return false, fmt.Errorf("etcd endpoint %.100q: use https; http is allowed only for addresses of this machine, such as http://127.0.0.1:2379", endpoint)
	}
	return u.Scheme == "https", nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c Config) withDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.History = cmp.Or(c.History, defaultHistory)
	c.Lease = max(cmp.Or(c.Lease, defaultLease), time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
