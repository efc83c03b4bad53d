package join

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// defaultPort is the server's where its URL names none.
const defaultPort = "8080"

// Config says which cluster to join, and as whom.
type Config struct {
	// Server is the server's URL or its host:port. The scheme does not matter: the connection is TLS.
	Server string
	// Token is the join token. It may be empty if the data directory holds a certificate already.
	Token string
	// NodeName is the name to join as.
	NodeName string
	// DataDir keeps the identity. Made with mode 0700 where it is missing.
	DataDir string
	// Labels of the node, for one that is new to the cluster.
	Labels map[string]string
	// Now is the clock; time.Now where nil.
	Now func() time.Time
	// Logger, silent where nil.
	Logger *slog.Logger
}

// Validate says what is missing or malformed.
func (c Config) Validate() error {
	if c.NodeName == "" {
		return errors.New("join: no node name is given")
	}
	if c.DataDir == "" {
		return errors.New("join: no data directory is given")
	}
	if c.Token != "" {
		if _, err := api.ParseJoinToken(c.Token); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	_, err := address(c.Server)
	return err
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// address is the host:port to dial for a server's URL.
func address(server string) (string, error) {
	text := server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return "", fmt.Errorf("join: server %q: give it as https://HOST:PORT", server)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("join: server %q: scheme %s is unknown, give it as https://HOST:PORT", server, u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
