package docker

import (
	"cmp"
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

// Config configures an Engine.
type Config struct {
	// Host is a DOCKER_HOST. The default is Docker's default socket.
	Host string
	// NetworkPool is divided into project networks, /27 each. The default is 10.213.0.0/16.
	NetworkPool netip.Prefix
	// AllowRegistries are patterns of the registries that images may be pulled from. Empty allows all. They keep the engine
	// from connecting to addresses that a manifest names, or that a registry names as its token service.
	AllowRegistries []string
	// CallTimeout applies to calls that only read (default 10 s), WorkTimeout to calls that change something (default 1 min).
	// Inactivity is how long a pull may make no progress (default 5 min).
	CallTimeout, WorkTimeout, Inactivity time.Duration
}

const (
	defaultPool = "10.213.0.0/16"
	subnetBits  = 27
)

// Validate sets defaults and checks the configuration.
func (c *Config) Validate() error {
	c.Host = cmp.Or(c.Host, client.DefaultDockerHost)
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

// Engine implements engine.Engine with a Docker engine. Each part has the calls for one type of object.
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
		reserved map[netip.Prefix]bool // subnets of networks that are being created
	}
)

// connection is the connection to the engine.
type connection struct {
	cfg    Config
	docker *client.Client

	mu         sync.Mutex
	negotiated bool
}

var _ engine.Engine = (*Engine)(nil)

// New returns an Engine. It does not contact the engine. The caller closes it.
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

// Close closes the connections to the engine.
func (e *connection) Close() error { return e.docker.Close() }

// api returns the client after it has negotiated the API version. The client would do that in its first call, but with a
// data race between concurrent first calls.
func (e *connection) api(ctx context.Context) (*client.Client, error) {
	e.mu.Lock()
	negotiated := e.negotiated
	e.mu.Unlock()
	if negotiated {
		return e.docker, nil
	}
	ping, err := e.docker.Ping(ctx) // without the lock: callers with shorter timeouts must not wait for a hanging engine
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

// call runs do with the client, whose API version is negotiated. The context of do ends after limit.
func (e *connection) call(ctx context.Context, limit time.Duration, do func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	return do(ctx, docker)
}

// ask is like call, and returns the result of do.
func ask[T any](ctx context.Context, e *connection, limit time.Duration, do func(context.Context, *client.Client) (T, error)) (out T, err error) {
	err = e.call(ctx, limit, func(ctx context.Context, docker *client.Client) (err error) {
		out, err = do(ctx, docker)
		return err
	})
	return out, err
}

// Ping checks that the engine answers.
func (e *connection) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.docker.Ping(ctx)
	return wrap(err, "ping engine")
}

// wrap classifies an error of the engine for the agent.
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
	case errdefs.IsNotFound(err), beingRemoved(err):
		means = engine.ErrNotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		means = engine.ErrInvalid
	default:
		return fmt.Errorf("%s: %w", what, tidy(err))
	}
	return fmt.Errorf("%s: %w: %w", what, means, tidy(err))
}

// beingRemoved reports whether the engine gives out no log because it is removing the container. Only the text says so.
func beingRemoved(err error) bool {
	return errdefs.IsConflict(err) && strings.Contains(err.Error(), "can not get logs from container which is dead or marked for removal")
}

// diskFull reports whether the engine's disk is full. The engine passes the kernel's error on only as text.
func diskFull(err error) bool {
	text := err.Error()
	return strings.Contains(text, syscall.ENOSPC.Error()) || strings.Contains(text, syscall.EDQUOT.Error())
}

// tidy removes the client's prefix from an error's text, which users read in a project's status.
func tidy(err error) error { return tidied{err} }

type tidied struct{ error }

func (t tidied) Error() string {
	return strings.TrimPrefix(t.error.Error(), "Error response from daemon: ")
}

func (t tidied) Unwrap() error { return t.error }

// unanswered reports whether an error means that the engine did not answer.
func unanswered(err error) bool {
	var netErr net.Error
	var urlErr *url.Error
	return errors.Is(err, context.DeadlineExceeded) || client.IsErrConnectionFailed(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.As(err, &netErr) || errors.As(err, &urlErr) || errdefs.IsUnavailable(err)
}

// unlessGone ignores errors that mean that an object is gone or already in the requested state.
func unlessGone(err error) error {
	if errdefs.IsNotFound(err) && !unanswered(err) || errdefs.IsNotModified(err) {
		return nil
	}
	return err
}

// unless ignores an error whose text says that an object already is as it should be.
func unless(err error, says string) error {
	if err != nil && strings.Contains(err.Error(), says) {
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
