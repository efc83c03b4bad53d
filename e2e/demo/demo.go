package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// demo is what the story makes, and end takes away.
type demo struct {
	out *printer
	bin string
	dir string

	engine  string
	second  *testdocker.Second // nil where there is one node
	cluster *testcluster.Cluster
	git     *testgit.HTTP
	repo    *testgit.Repo
	ingress string
	lock    *os.File
	held    []string // engines that may hold something of the cluster
}

// images that the manifests name.
func images() []string {
	return []string{testimage.WebV1, testimage.WebV2, testimage.WebV3, testimage.KV}
}

// prepare finds or makes everything that the story needs.
func (d *demo) prepare(ctx context.Context) (err error) {
	if err := d.prepareEngine(ctx); err != nil {
		return err
	}
	d.second, err = testdocker.StartSecond(ctx, secondName())
	switch {
	case errors.Is(err, testdocker.ErrNoSecond):
		d.second = nil
		d.out.say("one node only: a second engine in a network namespace cannot be had here")
		return nil
	case err != nil:
		return err
	}
	d.out.say("a second engine runs in the network namespace %s", d.second.NetNS)
	return testdocker.LoadImages(ctx, d.second.Host, images()...)
}

// prepareEngine makes a directory, builds the programs if they are not given, and finds an engine that no other demo uses.
func (d *demo) prepareEngine(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "cara-demo-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if d.bin == "" {
		d.bin = filepath.Join(d.dir, "bin")
		d.out.say("building cara-server, cara-agent and caractrl")
		if err := testcluster.Build(ctx, d.bin); err != nil {
			return err
		}
	}
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	if d.engine, err = testdocker.Find(ctx); err != nil {
		return err
	}
	d.out.say("Docker answers at %s", d.engine)
	if err := d.alone(ctx); err != nil {
		return err
	}
	return testdocker.LoadImages(ctx, d.engine, images()...)
}

// alone makes sure that no other demo runs on this machine, and takes away what one left that was killed: its projects
// had the names of ours.
func (d *demo) alone(ctx context.Context) error {
	file := filepath.Join(os.TempDir(), "cara-demo.lock")
	lock, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	d.lock = lock // until the process ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another demo runs on this machine (it holds %s): end it first", file)
	}
	for _, project := range []string{shop, blog, preview} {
		labels := map[string]string{api.LabelCluster: "", api.LabelProject: project}
		left, err := testdocker.List(ctx, d.engine, labels)
		if err != nil {
			return err
		}
		if !left.Empty() {
			d.out.say("removing what an earlier demo left of %s", project)
			if err := testdocker.Remove(ctx, d.engine, labels); err != nil {
				return err
			}
		}
	}
	return nil
}

// serveGit makes a repository that is served over HTTP by git http-backend.
func (d *demo) serveGit(ctx context.Context) (err error) {
	root := filepath.Join(d.dir, "git")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if d.repo, err = testgit.Create(ctx, root, "deploy"); err != nil {
		return err
	}
	if d.git, err = testgit.StartHTTP(ctx, root, false); err != nil {
		return err
	}
	d.repo.PushTo(d.git.RepoURL("deploy"))
	d.out.say("%s", d.git.RepoURL("deploy"))
	return nil
}

// startCluster starts the server and the agents, and waits until every node is Ready.
func (d *demo) startCluster(ctx context.Context) (err error) {
	cfg := testcluster.Config{Dir: d.dir, Bin: d.bin}
	first := testcluster.Agent{Name: "node-1", DockerHost: d.engine}
	if d.second != nil {
		// The other node must reach the server and this node's ingress, so both listen where its namespace sees them.
		for _, at := range []struct {
			address *string
			host    string
		}{{&cfg.Listen, "0.0.0.0"}, {&first.Ingress, d.second.Gateway}} {
			port, err := testcluster.FreePort()
			if err != nil {
				return err
			}
			*at.address = net.JoinHostPort(at.host, port)
		}
	}
	if d.cluster, err = testcluster.New(cfg); err != nil {
		return err
	}
	if err := d.cluster.StartServer(ctx); err != nil {
		return err
	}
	d.out.say("cara-server is ready at %s", d.cluster.URL())
	d.held = d.engines()
	if d.ingress, err = d.cluster.StartAgent(first); err != nil {
		return err
	}
	nodes := []string{"node-1"}
	if d.second != nil {
		if err := d.startSecondAgent(ctx); err != nil {
			return err
		}
		nodes = append(nodes, "node-2")
	}
	for _, node := range nodes {
		if err := d.out.wait(ctx, node+" is Ready", d.nodeReady(node)); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startSecondAgent(ctx context.Context) error {
	_, port, err := net.SplitHostPort(d.cluster.Listen)
	if err != nil {
		return fmt.Errorf("find the server's port: %w", err)
	}
	enter := d.second.Command(ctx, "true").Args
	_, err = d.cluster.StartAgent(testcluster.Agent{
		Name: "node-2", DockerHost: d.second.Host, Enter: enter[:len(enter)-1],
		Server:  "https://" + net.JoinHostPort(d.second.Gateway, port),
		Ingress: net.JoinHostPort(d.second.Address, "8081"),
	})
	return err
}

func (d *demo) nodeReady(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := d.cluster.Nodes()
		if err != nil {
			return err
		}
		n, err := nodes.GetNode(ctx, &carav1.GetRequest{Name: name})
		if err == nil && n.GetStatus().GetState() != api.NodeReady {
			err = fmt.Errorf("it is %s", n.GetStatus().GetState())
		}
		return err
	}
}

// secondName is the second engine's, apart from that of another demo on this machine.
func secondName() string { return "demo-" + strconv.FormatInt(int64(os.Getpid()), 36) }

// engines that containers may run on.
func (d *demo) engines() []string {
	if d.second == nil {
		return []string{d.engine}
	}
	return []string{d.engine, d.second.Host}
}

// end takes away all that is left, however far the story came.
func (d *demo) end(ctx context.Context) error {
	var errs []error
	if d.cluster != nil {
		errs = append(errs, d.cluster.Close(ctx)) // first: agents make again what is swept while they run
		for _, host := range d.held {
			errs = append(errs, d.cluster.Sweep(ctx, host), d.cluster.AwaitNothing(ctx, host, ""))
		}
	}
	if d.git != nil {
		errs = append(errs, d.git.Close())
	}
	// Also one that was interrupted while it started; where there is none this does nothing.
	errs = append(errs, (&testdocker.Second{Name: secondName()}).Drop(ctx))
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// dump is what to look at when a step failed.
func (d *demo) dump(ctx context.Context) string {
	if d.cluster == nil || d.cluster.Server == nil {
		return ""
	}
	return d.cluster.Dump(ctx)
}

// reachable says, with KEEP, what is up and how to end it.
func (d *demo) reachable(ctx context.Context) error {
	conn, err := d.cluster.Conn()
	if err != nil {
		return err
	}
	login, err := carav1.NewTokenServiceClient(conn).CreateLogin(ctx, &emptypb.Empty{})
	if err != nil {
		return fmt.Errorf("make a link to the page: %w", err)
	}
	fmt.Printf(`Everything stays up (KEEP=1). The page, by a link that logs in once, within 10 minutes:

  %[7]s

In another terminal:

  export CARA_SERVER=%[1]s CARA_TOKEN_FILE=%[2]s
  %[3]s get projects -w
  %[3]s page
  curl -H 'Host: shop.demo.test' http://%[4]s/
  git clone %[5]s

Ctrl-C here, or kill -TERM %[6]d, ends it and leaves nothing behind.

`, d.cluster.URL(), filepath.Join(d.cluster.DataDir(), "admin.token"), filepath.Join(d.bin, "caractrl"),
		d.ingress, d.git.RepoURL("deploy"), os.Getpid(), d.cluster.URL()+login.GetPath())
	return nil
}
