package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/agent/enginetest/failpoint"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// childEnv holds a childConfig for a test binary that runs an agent instead of tests.
const childEnv = "CARA_TEST_AGENT"

// childConfig configures an agent in its own process.
type childConfig struct {
	Server, Cluster, DataDir, Host string
	Label                          string
	When                           failpoint.When
	Reads                          bool
	Seen                           string // file that gets a line for each call of the engine
}

// child is such a process.
type child struct {
	*testcluster.Process
	seen string
}

// startChild starts the rig's agent as a process that dies at its failpoint.
func (r *onDocker) startChild(t testing.TB, at failpoint.Config) *child {
	t.Helper()
	dir := t.TempDir()
	c := childConfig{
		Server: r.listen(t), Cluster: r.cluster, DataDir: r.cfg.DataDir, Host: r.host,
		Label: at.Label, When: at.When, Reads: at.Reads, Seen: filepath.Join(dir, "calls"),
	}
	env, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := testcluster.Start(filepath.Join(dir, "log"), append(os.Environ(), childEnv+"="+string(env)), self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the agent's process said:\n%s", p.Tail(40))
		}
	})
	return &child{Process: p, seen: c.Seen}
}

// calls are the labels of the engine's calls so far.
func (c *child) calls(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile(c.seen)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// runChild runs an agent in this process until it is killed or fails.
func runChild(text string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) //nolint:forbidigo // it is the main of a process
	defer stop()
	seen, err := os.OpenFile(c.Seen, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer seen.Close()
	adapter, err := docker.New(docker.Config{Host: c.Host})
	if err != nil {
		return err
	}
	defer adapter.Close()
	conn, err := grpc.NewClient("unix://"+c.Server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	var mu sync.Mutex
	engine := failpoint.New(adapter, failpoint.Config{
		Label: c.Label, When: c.When, Reads: c.Reads, Die: die,
		Seen: func(label string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(seen, label)
		},
	})
	a, err := agent.New(rigConfig(conn, engine, c.Cluster, c.DataDir, slog.New(slog.NewTextHandler(os.Stderr, nil))))
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// die kills its own process with SIGKILL.
func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}
