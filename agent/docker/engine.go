package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// Config says which engine, and where its networks lie.
type Config struct {
	// Host is a DOCKER_HOST; Docker's default socket where empty.
	Host string
	// NetworkPool is what project networks are cut from, /27 each; 10.213.0.0/16 where it is not set.
	NetworkPool netip.Prefix
	// AllowRegistries are patterns of the registries that images may be pulled from; all where empty. They are what keeps
	// the engine from calling addresses that a manifest names, or that a registry names as the place of its tokens.
	AllowRegistries []string
	// CallTimeout of calls that only ask (10 s where 0), WorkTimeout of those that do something (1 min where 0),
	// Inactivity of pulls (5 min where 0): a pull is given up when nothing moved for that long.
	CallTimeout, WorkTimeout, Inactivity time.Duration
}

const (
	defaultPool = "10.213.0.0/16"
	subnetBits  = 27
)

// Validate fills in defaults and says what is wrong.
func (c *Config) Validate() error {
	if c.Host == "" {
		c.Host = client.DefaultDockerHost
	}
	if !c.NetworkPool.IsValid() {
		c.NetworkPool = netip.MustParsePrefix(defaultPool)
	}
	if !c.NetworkPool.Addr().Is4() || c.NetworkPool.Bits() > subnetBits || c.NetworkPool.Bits() < 8 {
		return fmt.Errorf("network pool %s: write an IPv4 range from /8 to /%d, such as %s", c.NetworkPool, subnetBits, defaultPool)
	}
	c.NetworkPool = c.NetworkPool.Masked()
	for field, value := range map[*time.Duration]time.Duration{
		&c.CallTimeout: 10 * time.Second, &c.WorkTimeout: time.Minute, &c.Inactivity: 5 * time.Minute,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	return nil
}

// Engine is a Docker engine behind engine.Engine. Each part has the calls for one kind of object.
type Engine struct {
	*connection
	containers
	images
	networks
	volumes
	streams
}

type (
	containers struct{ *connection }
	images     struct{ *connection }
	volumes    struct{ *connection }
	streams    struct{ *connection }
	networks   struct {
		*connection

		making   sync.Mutex
		reserved map[netip.Prefix]bool // subnets of networks that are being made
	}
)

// connection is the way to the engine.
type connection struct {
	cfg    Config
	docker *client.Client

	mu         sync.Mutex
	negotiated bool
}

var _ engine.Engine = (*Engine)(nil)

// New returns an adapter. It asks nothing of the engine yet. The caller closes it.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	docker, err := client.NewClientWithOpts(client.WithHost(cfg.Host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("open engine %s: %w", cfg.Host, err)
	}
	c := &connection{cfg: cfg, docker: docker}
	return &Engine{
		connection: c, containers: containers{c}, images: images{c}, volumes: volumes{c}, streams: streams{c},
		networks: networks{connection: c, reserved: map[netip.Prefix]bool{}},
	}, nil
}

// Close drops the connections to the engine.
func (e *connection) Close() error { return e.docker.Close() }

// api returns the client once it speaks the engine's version. The client would find that out with its first call, but
// not without a race between that call and those beside it.
func (e *connection) api(ctx context.Context) (*client.Client, error) {
	e.mu.Lock()
	negotiated := e.negotiated
	e.mu.Unlock()
	if negotiated {
		return e.docker, nil
	}
	ping, err := e.docker.Ping(ctx) // outside of the lock: an engine that hangs must not hold up who gives up earlier
	if err != nil {
		return nil, wrap(err, "ask the engine for its version")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.negotiated {
		e.docker.NegotiateAPIVersionPing(ping)
		e.negotiated = true
	}
	return e.docker, nil
}

// Ping asks for a sign of life.
func (e *connection) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.docker.Ping(ctx)
	return wrap(err, "ping engine")
}

// wrap gives an error of the engine its meaning for the agent.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	var means error
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, err)
	case unanswered(err):
		means = engine.ErrUnavailable
	case diskFull(err):
		means = engine.ErrNoRoom
	case errdefs.IsNotFound(err):
		means = engine.ErrNotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		means = engine.ErrInvalid
	default:
		return fmt.Errorf("%s: %w", what, tidy(err))
	}
	return fmt.Errorf("%s: %w: %w", what, means, tidy(err))
}

// diskFull reports whether the engine's disk is full. The engine passes on the kernel's error as text only.
func diskFull(err error) bool {
	text := err.Error()
	return strings.Contains(text, syscall.ENOSPC.Error()) || strings.Contains(text, syscall.EDQUOT.Error())
}

// tidy takes out of an error's text what the client puts in front of each: people read it in a project's status.
func tidy(err error) error { return tidied{err} }

type tidied struct{ error }

func (t tidied) Error() string {
	return strings.TrimPrefix(t.error.Error(), "Error response from daemon: ")
}

func (t tidied) Unwrap() error { return t.error }

// unanswered says that an error is not the engine's word but the lack of it.
func unanswered(err error) bool {
	var netErr net.Error
	var urlErr *url.Error
	return errors.Is(err, context.DeadlineExceeded) || client.IsErrConnectionFailed(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.As(err, &netErr) || errors.As(err, &urlErr) || errdefs.IsUnavailable(err)
}

// unlessGone turns the engine's word that a thing is gone, or as it should be, into success.
func unlessGone(err error) error {
	if errdefs.IsNotFound(err) && !unanswered(err) || errdefs.IsNotModified(err) {
		return nil
	}
	return err
}

func labelFilter(labels map[string]string) filters.Args {
	args := filters.NewArgs()
	for key, value := range labels {
		if value != "" {
			key += "=" + value
		}
		args.Add("label", key)
	}
	return args
}

// has reports whether labels holds all of want.
func has(labels, want map[string]string) bool {
	for key, value := range want {
		if labels[key] != value {
			return false
		}
	}
	return true
}
