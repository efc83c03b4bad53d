package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Config configures a cluster.
type Config struct {
	// Dir contains all data, logs and the client's context. It must exist.
	Dir string
	// Bin contains the three programs; see Build.
	Bin string
	// ServerFlags are additional flags of cara-server.
	ServerFlags []string
	// ServerEnv are additional variables of the server's environment.
	ServerEnv []string
	// Listen is the server's address. The default is a free loopback port.
	Listen string
}

// Cluster is one cara-server and any number of cara-agents.
type Cluster struct {
	Config
	Server *Process
	Agents map[string]*Process

	agentArgs map[string][]string

	mu   sync.Mutex
	conn *grpc.ClientConn
	id   string // the cluster's ID after the first request
}

// FreeAddress returns a loopback address that was unused a moment ago. Its port is below those that the kernel gives to
// connections and to listeners at any port, so that hardly anything takes it before the caller does.
func FreeAddress() (string, error) {
	const first, last = 10_000, 32_000
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil { //nolint:noctx // closed at once
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// FreePort returns the port of a FreeAddress, for programs that listen at another address of this machine.
func FreePort() (string, error) {
	address, err := FreeAddress()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(address)
	return port, err
}

// New returns a cluster without running processes.
func New(cfg Config) (*Cluster, error) {
	if cfg.Listen == "" {
		addr, err := FreeAddress()
		if err != nil {
			return nil, err
		}
		cfg.Listen = addr
	}
	return &Cluster{Config: cfg, Agents: map[string]*Process{}, agentArgs: map[string][]string{}}, nil
}

// Address returns the server's address for programs on this machine.
func (c *Cluster) Address() string {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || (host != "0.0.0.0" && host != "") {
		return c.Listen
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// URL returns the server's URL for programs on this machine.
func (c *Cluster) URL() string { return "http://" + c.Address() }

// DataDir returns the server's data directory.
func (c *Cluster) DataDir() string { return filepath.Join(c.Dir, "server") }

// StartServer starts or restarts the server, and waits until it is ready.
func (c *Cluster) StartServer(ctx context.Context) error { return c.startReady(ctx, c.ServerArgs()) }

// StartBeside starts or restarts a server of a cluster with several, and waits until it is ready. It needs no token in its data directory.
func (c *Cluster) StartBeside(ctx context.Context) error {
	if err := c.startServer(c.ServerArgs()); err != nil {
		return err
	}
	return c.AwaitReady(ctx)
}

// ServerArgs returns the command line of the server, for a test that waits for something else than readiness.
func (c *Cluster) ServerArgs() []string {
	return append([]string{
		filepath.Join(c.Bin, "cara-server"), "--data-dir", c.DataDir(), "--listen", c.Listen,
		"--allow-source-cidr", "127.0.0.0/8", "--allow-source-cidr", "::1/128",
	}, c.ServerFlags...)
}

// AwaitUnready waits until the server says that it cannot serve.
func (c *Cluster) AwaitUnready(ctx context.Context) error {
	return c.await(ctx, "is not ready", func(status int, _ string) bool { return status != http.StatusOK })
}

// AwaitReady waits until the server serves.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	return c.await(ctx, "is ready", func(status int, _ string) bool { return status == http.StatusOK })
}

// await waits until cond holds for what the server answers at /readyz.
func (c *Cluster) await(ctx context.Context, what string, cond func(status int, text string) bool) error {
	return WaitFor(ctx, "cara-server "+what, func(ctx context.Context) error {
		if c.Server.Exited() {
			return Fatal(fmt.Errorf("cara-server ended: %w\n%s", c.Server.err, c.Server.Tail(20)))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL()+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		if err == nil && !cond(resp.StatusCode, string(text)) {
			err = fmt.Errorf("/readyz says %s: %s", resp.Status, text)
		}
		return err
	})
}

// StartDev starts server and agent in one process, like `cara-server dev DIR`, and waits until the server is ready.
func (c *Cluster) StartDev(ctx context.Context, dir string, flags ...string) error {
	return c.startReady(ctx, append([]string{
		filepath.Join(c.Bin, "cara-server"), "dev", dir, "--data-dir", c.DataDir(), "--listen", c.Listen,
	}, flags...))
}

func (c *Cluster) startReady(ctx context.Context, argv []string) error {
	if err := c.startServer(argv); err != nil {
		return err
	}
	if err := c.AwaitReady(ctx); err != nil {
		return err
	}
	_, err := c.Labels(ctx) // now, because they are needed later when the server may be down
	return err
}

func (c *Cluster) startServer(argv []string) error {
	p, err := Start(filepath.Join(c.Dir, "server.log"), append(c.Env(), c.ServerEnv...), argv...)
	if err != nil {
		return err
	}
	c.Server = p
	return nil
}

// Agent configures an agent.
type Agent struct {
	Name       string
	DockerHost string
	// Enter is a command prefix, for example nsenter with a network namespace.
	Enter []string
	// Server is the server's address for the agent, if it is not the cluster's URL.
	Server string
	// Ingress is the listen address of the ingress. The default is a free loopback port.
	Ingress string
	// Pool is the network pool.
	Pool  string
	Flags []string
}

// StartAgent starts an agent and returns its ingress address. It does not wait until the node is Ready.
func (c *Cluster) StartAgent(a Agent) (ingress string, err error) {
	if a.Ingress == "" {
		if a.Ingress, err = FreeAddress(); err != nil {
			return "", err
		}
	}
	if a.Server == "" {
		a.Server = c.URL()
	}
	if a.Pool == "" {
		a.Pool = "10.213.0.0/16"
	}
	argv := append(slices.Clone(a.Enter), filepath.Join(c.Bin, "cara-agent"),
		"--server", a.Server, "--join-token-file", filepath.Join(c.DataDir(), "join.token"),
		"--node-name", a.Name, "--data-dir", filepath.Join(c.Dir, "agent-"+a.Name),
		"--docker-host", a.DockerHost, "--ingress-listen", a.Ingress, "--network-pool", a.Pool)
	c.agentArgs[a.Name] = append(argv, a.Flags...)
	return a.Ingress, c.RestartAgent(a.Name)
}

// RestartAgent starts an agent again with the same arguments.
func (c *Cluster) RestartAgent(name string) error {
	p, err := Start(filepath.Join(c.Dir, "agent-"+name+".log"), c.Env(), c.agentArgs[name]...)
	if err != nil {
		return err
	}
	c.Agents[name] = p
	return nil
}

// Env returns the environment for the cluster's programs, without the user's own contexts and settings.
func (c *Cluster) Env() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "CARA_") || strings.HasPrefix(kv, "DOCKER_HOST=") ||
			strings.HasPrefix(kv, "HOME=") || strings.HasPrefix(kv, "XDG_")
	})
	return append(env, "HOME="+c.Dir, "NO_COLOR=1")
}

// Ctl runs caractrl as the admin and returns its result.
func (c *Cluster) Ctl(ctx context.Context, stdin string, args ...string) (Result, error) {
	return c.Program(ctx, stdin, "caractrl", append([]string{
		"--server", c.URL(), "--token-file", filepath.Join(c.DataDir(), "admin.token"),
	}, args...)...)
}

// Program runs one of the three programs, with the cluster's directory as the home directory, and returns its result.
func (c *Cluster) Program(ctx context.Context, stdin, program string, args ...string) (Result, error) {
	return runCommand(ctx, c.Dir, c.Env(), stdin, append([]string{filepath.Join(c.Bin, program)}, args...)...)
}

// Close stops every process: first the agents, then the server.
func (c *Cluster) Close(ctx context.Context) error {
	var errs []error
	if c.conn != nil {
		errs = append(errs, c.conn.Close())
	}
	for _, p := range append(slices.Collect(maps.Values(c.Agents)), c.Server) {
		if p == nil || p.Exited() {
			continue
		}
		stop, cancel := context.WithTimeout(ctx, time.Minute)
		errs = append(errs, p.Stop(stop))
		cancel()
	}
	return errors.Join(errs...)
}
