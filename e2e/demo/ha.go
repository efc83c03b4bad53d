package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// haDemo is the story of three servers and three members of etcd, each in a network namespace of its own.
type haDemo struct {
	*demo
	network       *testnet.Network
	etcd, servers [3]machine
	running       map[string]*testcluster.Process // by machine
	agents        []*testcluster.Process
	gitLink       *testlink.Link
	visits        visitor
}

func newHADemo(d *demo) *haDemo {
	return &haDemo{demo: d, running: map[string]*testcluster.Process{}}
}

// tell tells the whole story, and stops at the first step that does not hold.
func (h *haDemo) tell(ctx context.Context) error {
	for _, s := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Find Docker and etcd, make six network namespaces", h.prepareHA},
		{"Start three members of etcd and three servers", h.startServers},
		{"Start two agents, which know one server and learn the others", h.startAgents},
		{"Register a repository and push: the shop and the blog run", h.firstPush},
		{"Kill the server that runs the scheduler during a push", h.killServer},
		{"Kill the leader of etcd during a push", h.killLeader},
		{"Cut the server that runs the scheduler off from everything", h.cutServer},
		{"What a visitor of the shop has seen of all that", h.visitorsSaw},
	} {
		if err := h.out.step(s.title, func() error { return s.do(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (h *haDemo) prepareHA(ctx context.Context) (err error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return fmt.Errorf("this demo needs etcd (Debian's package etcd-server): %w", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("this demo makes network namespaces and needs root")
	}
	if err := h.prepareEngine(ctx); err != nil {
		return err
	}
	if err := h.connect(ctx); err != nil {
		return err
	}
	if err := h.serveGit(ctx); err != nil {
		return err
	}
	// The servers reach git at this machine's address in their network.
	h.gitLink, err = testlink.Start(ctx, testlink.Address{Network: "tcp", Name: h.network.Self + ":0"}, testlink.Address{Network: "tcp", Name: strings.TrimPrefix(h.git.URL(), "http://")})
	return err
}

// start runs a program on a machine.
func (h *haDemo) start(m machine, argv ...string) error {
	p, err := testcluster.Start(filepath.Join(h.dir, m.name+".log"), append(os.Environ(), "HOME="+h.dir), append(m.Enter(), argv...)...)
	if err == nil {
		h.running[m.name] = p
	}
	return err
}

func (h *haDemo) startServers(ctx context.Context) error {
	if err := h.certificates(); err != nil {
		return err
	}
	for _, m := range h.etcd {
		if err := h.startEtcd(m); err != nil {
			return err
		}
	}
	if err := h.startServer(h.servers[0]); err != nil {
		return err
	}
	if err := h.listed(ctx, 1); err != nil { // it makes the cluster key
		return err
	}
	for _, m := range h.servers[1:] {
		if err := h.startServer(m); err != nil {
			return err
		}
	}
	if err := h.listed(ctx, 3); err != nil {
		return err
	}
	return h.show(ctx, "get", "servers")
}

// certificates makes those of etcd and its clients.
func (h *haDemo) certificates() error {
	ca, err := testca.New()
	if err != nil {
		return err
	}
	var ips []net.IP
	for _, m := range h.etcd {
		ips = append(ips, net.ParseIP(m.IP))
	}
	chain, key, err := ca.Both("cara", ips...)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"etcd-ca.crt": ca.PEM(), "etcd.crt": chain, "etcd.key": key} {
		if err := os.WriteFile(filepath.Join(h.dir, name), text, 0o600); err != nil {
			return fmt.Errorf("write a certificate: %w", err)
		}
	}
	return nil
}

func (h *haDemo) startEtcd(m machine) error {
	var all []string
	for _, m := range h.etcd {
		all = append(all, m.name+"=http://"+m.IP+":2380")
	}
	file := func(name string) string { return filepath.Join(h.dir, name) }
	return h.start(
		m, "etcd", "--name", m.name, "--data-dir", file(m.name), "--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new",
		"--listen-client-urls", "https://"+m.IP+":2379", "--advertise-client-urls", "https://"+m.IP+":2379",
		"--listen-peer-urls", "http://"+m.IP+":2380", "--initial-advertise-peer-urls", "http://"+m.IP+":2380",
		"--client-cert-auth", "--trusted-ca-file", file("etcd-ca.crt"), "--cert-file", file("etcd.crt"), "--key-file", file("etcd.key"),
	)
}

func (h *haDemo) startServer(m machine) error {
	var endpoints []string
	for _, m := range h.etcd {
		endpoints = append(endpoints, "https://"+m.IP+":2379")
	}
	file := func(name string) string { return filepath.Join(h.dir, name) }
	return h.start(
		m, filepath.Join(h.bin, "cara-server"), "--data-dir", file(m.name), "--listen", m.IP+":8080", "--contexts-file", "none",
		"--allow-source-cidr", h.network.Range, "--store", "etcd", "--etcd-endpoints", strings.Join(endpoints, ","),
		"--etcd-ca", file("etcd-ca.crt"), "--etcd-cert", file("etcd.crt"), "--etcd-key", file("etcd.key"), "--cluster-key-file", file("cluster.key"),
	)
}

// ctl runs caractrl with the addresses of all servers.
func (h *haDemo) ctl(ctx context.Context, args ...string) (string, error) {
	var urls []string
	for _, m := range h.servers {
		urls = append(urls, "https://"+m.IP+":8080")
	}
	first := filepath.Join(h.dir, h.servers[0].name)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(h.bin, "caractrl"), append([]string{
		"--server", strings.Join(urls, ","), "--token-file", filepath.Join(first, "admin.token"), "--ca-file", filepath.Join(first, "ca.crt"),
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("caractrl %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

func (h *haDemo) show(ctx context.Context, args ...string) error {
	out, err := h.ctl(ctx, args...)
	if err == nil {
		h.out.show("caractrl "+strings.Join(args, " "), out)
	}
	return err
}

// listed waits until so many servers are listed, one of which runs the scheduler.
func (h *haDemo) listed(ctx context.Context, n int) error {
	return h.out.wait(ctx, fmt.Sprintf("%d servers are listed", n), func(ctx context.Context) error {
		out, err := h.ctl(ctx, "get", "servers")
		if err == nil && (strings.Count(out, ":8080") != n || strings.Count(out, "scheduler") != 1) {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
}

// scheduling returns the server that runs the scheduler.
func (h *haDemo) scheduling(ctx context.Context) (machine, error) {
	out, err := h.ctl(ctx, "get", "servers")
	for _, m := range h.servers {
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, m.IP+":") && strings.Contains(line, "scheduler") {
				return m, err
			}
		}
	}
	return machine{}, errors.Join(err, fmt.Errorf("no server runs the scheduler: %s", out))
}

func (h *haDemo) startAgents(ctx context.Context) (err error) {
	for i, name := range []string{"node-1", "node-2"} {
		port, err := testcluster.FreePort()
		if err != nil {
			return err
		}
		ingress := net.JoinHostPort(h.network.Self, port) // agents tell each other no address of loopback
		if i == 0 {
			h.ingress = ingress
		}
		p, err := testcluster.Start(filepath.Join(h.dir, name+".log"), append(os.Environ(), "HOME="+h.dir),
			filepath.Join(h.bin, "cara-agent"), "--server", "https://"+h.servers[i].IP+":8080", "--join-token-file", filepath.Join(h.dir, h.servers[0].name, "join.token"),
			"--node-name", name, "--data-dir", filepath.Join(h.dir, name), "--docker-host", h.engine, "--ingress-listen", ingress,
			"--network-pool", fmt.Sprintf("10.21%d.0.0/16", 5+i))
		if err != nil {
			return err
		}
		h.agents = append(h.agents, p)
	}
	err = h.out.wait(ctx, "both nodes are Ready", func(ctx context.Context) error {
		out, err := h.ctl(ctx, "get", "nodes")
		if err == nil && strings.Count(out, " "+api.NodeReady) != 2 {
			err = fmt.Errorf("they are %s", out)
		}
		return err
	})
	if err == nil {
		err = h.out.wait(ctx, "both agents know all servers", h.learned)
	}
	return errors.Join(err, h.show(ctx, "get", "servers"))
}

// learned checks that the agents have been told the addresses of all servers. Until then an agent knows only one, and cannot go on
// with another.
func (h *haDemo) learned(context.Context) error {
	for _, node := range []string{"node-1", "node-2"} {
		told, err := os.ReadFile(filepath.Join(h.dir, node, "servers.json"))
		if err != nil {
			return err
		}
		for _, m := range h.servers {
			if !strings.Contains(string(told), m.IP+":") {
				return fmt.Errorf("%s knows %s", node, told)
			}
		}
	}
	return nil
}

func (h *haDemo) firstPush(ctx context.Context) error {
	url := "http://" + h.gitLink.Addr() + "/deploy.git"
	if err := h.show(ctx, "create", "source", "git", "deploy", "--url", url, "--branch", "main", "--interval", "1s", "--on-delete", "Delete"); err != nil {
		return err
	}
	if err := errors.Join(h.write("shop.yaml", "shop.yaml"), h.write("blog.yaml", "blog.yaml")); err != nil {
		return err
	}
	if _, err := h.push(ctx, "Open a shop and a blog"); err != nil {
		return err
	}
	if err := errors.Join(h.answers(ctx, "shop.demo.test", "visits 1"), h.answers(ctx, "blog.demo.test", "web v1")); err != nil {
		return err
	}
	h.visits.begin(ctx, h.ingress)
	return h.show(ctx, "get", "projects")
}

// during pushes a new version of the blog, breaks something at once, and times when people can write again and when the push has
// arrived.
func (h *haDemo) during(ctx context.Context, version string, breaks func() error) error {
	if err := h.write("blog.yaml", "blog.yaml", "web:v1", "web:"+version); err != nil {
		return err
	}
	if _, err := h.push(ctx, "Use web "+version+" in the blog"); err != nil {
		return err
	}
	if err := breaks(); err != nil {
		return err
	}
	tries := 0
	if err := h.out.wait(ctx, "a write succeeds", func(ctx context.Context) error {
		tries++
		_, err := h.ctl(ctx, "reconcile", "deploy")
		return err
	}); err != nil {
		return err
	}
	h.out.say("after %d calls that failed", tries-1)
	return h.answers(ctx, "blog.demo.test", "web "+version)
}

func (h *haDemo) killServer(ctx context.Context) error {
	m, err := h.scheduling(ctx)
	if err != nil {
		return err
	}
	err = h.during(ctx, "v2", func() error {
		h.out.say("killing the server %s", m.IP)
		return h.running[m.name].Kill()
	})
	if err != nil {
		return err
	}
	if err := errors.Join(h.listed(ctx, 2), h.startServer(m), h.listed(ctx, 3)); err != nil {
		return err
	}
	return h.show(ctx, "get", "servers")
}

// leader returns the member of etcd that was elected in the newest term, as the logs say.
func (h *haDemo) leader() (found machine, err error) {
	newest := 0
	for _, m := range h.etcd {
		text, err := os.ReadFile(filepath.Join(h.dir, m.name+".log"))
		if err != nil {
			return found, fmt.Errorf("find the leader of etcd: %w", err)
		}
		const elected = "became leader at term "
		at := strings.LastIndex(string(text), elected)
		if at < 0 {
			continue
		}
		term := 0
		if _, err := fmt.Sscan(string(text[at+len(elected):]), &term); err != nil {
			return found, fmt.Errorf("read the term of etcd's leader %s: %w", m.name, err)
		}
		if term > newest {
			found, newest = m, term
		}
	}
	if newest == 0 {
		return found, errors.New("no log of etcd says which member is the leader")
	}
	return found, nil
}

func (h *haDemo) killLeader(ctx context.Context) error {
	m, err := h.leader()
	if err != nil {
		return err
	}
	err = h.during(ctx, "v3", func() error {
		h.out.say("killing the member of etcd %s", m.IP)
		return h.running[m.name].Kill()
	})
	return errors.Join(err, h.startEtcd(m))
}

func (h *haDemo) cutServer(ctx context.Context) error {
	m, err := h.scheduling(ctx)
	if err != nil {
		return err
	}
	err = h.during(ctx, "v1", func() error {
		h.out.say("cutting the server %s off", m.IP)
		return m.Unplug(ctx)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(m.Plug(ctx), h.listed(ctx, 3)); err != nil {
		return err
	}
	return h.show(ctx, "get", "servers")
}

func (h *haDemo) visitorsSaw(ctx context.Context) error {
	n, failed := h.visits.end()
	h.out.say("%d requests to the shop, %d failed", n, failed)
	if n == 0 || failed > 0 {
		return fmt.Errorf("%d of %d requests to the shop failed: the loss of servers must not reach containers", failed, n)
	}
	return h.show(ctx, "get", "projects")
}
