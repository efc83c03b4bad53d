package program

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/api/syntax"
)

const maxPublicAddresses = 16

// publicAddress returns why a text is neither an IP address nor a host name, or "".
func publicAddress(text string) string {
	if ip, err := netip.ParseAddr(text); err == nil {
		if ip.IsUnspecified() || ip.Zone() != "" {
			return "is not an address that clients can reach"
		}
		return ""
	}
	if why := syntax.HostPattern(text); why != "" || strings.Contains(text, syntax.Everything) {
		return "is neither an IP address nor a host name: give it without a port, such as 203.0.113.5"
	}
	return ""
}

// checkAddresses reports an address that is already in use. It runs before the node joins, so that a wrong flag does not
// leave a node behind.
func (c *AgentConfig) checkAddresses(ctx context.Context) error {
	for flag, address := range map[string]string{
		"--ingress-listen": c.IngressListen, "--metrics-listen": c.MetricsListen, "--public-http": c.PublicHTTP, "--public-https": c.PublicHTTPS,
	} {
		if address == "" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("%s %s cannot be used; stop what listens there, or give another address: %w", flag, address, err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("%s %s: %w", flag, address, err)
		}
	}
	return nil
}

// listen opens the listeners of the ingress.
func (c *AgentConfig) listen(ctx context.Context) (on ingress.Listeners, err error) {
	for _, at := range []struct {
		flag, address string
		listener      *net.Listener
	}{
		{"--ingress-listen", c.IngressListen, &on.Internal}, {"--public-http", c.PublicHTTP, &on.PublicHTTP}, {"--public-https", c.PublicHTTPS, &on.PublicHTTPS},
	} {
		if at.address == "" {
			continue
		}
		if *at.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", at.address); err != nil {
			on.Close()
			return on, fmt.Errorf("%s %s: %w", at.flag, at.address, err)
		}
	}
	return on, nil
}

// accessLog opens the file of the flag, so that an error is reported at the start.
func (c *AgentConfig) accessLog() (io.Writer, error) {
	switch c.AccessLog {
	case "", "off":
		return nil, nil
	case "-":
		return os.Stdout, nil
	}
	f := &ingress.LogFile{Path: c.AccessLog}
	if err := f.Open(); err != nil {
		return nil, fmt.Errorf("--ingress-access-log: %w", err)
	}
	return f, nil
}

// ingressAddress returns the address that other agents use: that of the flag, or the listening one. If the agent listens on
// every address of its machine, it uses the address that local returns.
func (c *AgentConfig) ingressAddress(listening string, local func() netip.Addr) (string, error) {
	if c.IngressAddress != "" {
		host, port, err := net.SplitHostPort(c.IngressAddress)
		if err != nil || host == "" || port == "" || port == "0" {
			return "", fmt.Errorf("--ingress-address %q: give it as HOST:PORT, as the other nodes reach this one", c.IngressAddress)
		}
		return c.IngressAddress, nil
	}
	at, err := netip.ParseAddrPort(listening)
	if err != nil || !at.Addr().IsUnspecified() {
		return listening, nil
	}
	ip := local()
	if !ip.IsValid() {
		c.Logger.Warn("this machine's address is not known, so other nodes cannot reach its ingress: give --ingress-address", "listening", listening)
		return "", nil
	}
	return netip.AddrPortFrom(ip, at.Port()).String(), nil
}
