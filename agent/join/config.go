package join

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// defaultPort is the port if the server's URL has none.
const defaultPort = "8080"

// Config configures a join.
type Config struct {
	// Server is the server's URL or its host:port, or a list of several, separated by commas. The scheme does not matter: the
	// connection is TLS.
	Server string
	// Token is the join token. It may be empty if the data directory already has a certificate.
	Token string
	// NodeName is the name to join as.
	NodeName string
	// DataDir stores the identity. It is created with mode 0700 if it does not exist.
	DataDir string
	// Labels of the node, set only when the node is new to the cluster.
	Labels map[string]string
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Logger is optional.
	Logger *slog.Logger
}

// Validate returns an error for a missing or malformed field.
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
	_, err := addresses(c.Server)
	return err
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// address returns the host:port to dial for a server's URL.
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
	port := cmp.Or(u.Port(), defaultPort)
	return net.JoinHostPort(u.Hostname(), port), nil
}
