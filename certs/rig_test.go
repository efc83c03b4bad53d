package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/test/testacme"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/store/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 3 * time.Minute

// rig is a real server, a real authority and the real ingress of agents. The engine of the agents is left out: what the
// authority asks is answered without containers.
type rig struct {
	*testing.T
	*testacme.Authority
	db       *pebble.Store
	settings apiserver.Config // of the server
	server   *apiserver.Server
	conn     *grpc.ClientConn // as admin
	url, dir string
	port     int          // of the agents' public HTTP
	first    net.Listener // at that port, until the first agent has it
	ahead    atomic.Int64 // of the loop's clock
	mute     atomic.Bool  // agents confirm nothing
	stop     func()       // the loop
	change   func(*Config)
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

// pass moves the loop's clock.
func (r *rig) pass(d time.Duration) { r.ahead.Add(int64(d)) }

func newRig(t *testing.T, change func(*rig, *Config)) *rig {
	t.Helper()
	return newRigWith(t, "", apiserver.Config{}, change)
}

// newRigWith is newRig with the address of a DNS server for the authority, and with some fields for the server.
func newRigWith(t *testing.T, dns string, server apiserver.Config, change func(*rig, *Config)) *rig {
	t.Helper()
	t.Parallel()
	r := &rig{T: t, dir: t.TempDir(), settings: server}
	first, err := new(net.ListenConfig).Listen(r.Context(), "tcp", "127.0.0.1:0") // kept, so that nothing else gets the port
	r.must(err)
	r.Cleanup(func() { _ = first.Close() }) // an agent may have closed it
	r.first, r.port = first, first.Addr().(*net.TCPAddr).Port
	r.Authority = testacme.StartAt(t, r.port, dns)
	r.change = func(c *Config) {
		if change != nil {
			change(r, c)
		}
	}
	r.serve()
	r.obtain()
	return r
}

// serve runs the server.
func (r *rig) serve() {
	r.Helper()
	log := slog.New(slog.NewTextHandler(r.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := pebble.Open(pebble.Config{Dir: filepath.Join(r.dir, "store"), Logger: log})
	r.must(err)
	r.db = db
	l, err := new(net.ListenConfig).Listen(r.Context(), "tcp", "127.0.0.1:0")
	r.must(err)
	r.url = "http://" + l.Addr().String()
	id, err := identity.Open(identity.Config{DataDir: r.dir, Listen: l.Addr().String(), Logger: log})
	r.must(err)
	cfg := r.settings
	cfg.Store, cfg.Identity, cfg.ClusterID, cfg.Logger, cfg.ObtainCertificates = db, id, id.ClusterID(), log, true
	r.server, err = apiserver.New(cfg)
	r.must(err)
	r.must(r.server.FirstStart(r.Context()))
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context())) // it outlives the clients
	done := make(chan error, 1)
	go func() { done <- r.server.Run(ctx, identity.NewListener(l, id.TLSConfig())) }()
	r.Cleanup(func() {
		stop()
		r.must(errors.Join(<-done, db.Close()))
	})
	r.conn, err = access.Dial(access.Context{Server: r.url, TokenFile: filepath.Join(r.dir, identity.AdminTokenFile)})
	r.must(err)
	r.Cleanup(func() { r.conn.Close() })
}

// obtain runs the loop, after the one before has been stopped.
func (r *rig) obtain() {
	r.Helper()
	cfg := r.config()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context())) // a test stops it
	done := make(chan error, 1)
	go func() { done <- New(cfg).Run(ctx) }()
	stopped := false
	r.stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				r.Error(err)
			}
		}
	}
	r.Cleanup(r.stop)
}

// config returns the configuration of the loop.
func (r *rig) config() Config {
	r.Helper()
	conn, err := r.server.Client(api.RoleCerts)
	r.must(err)
	text, err := os.ReadFile(r.RootsFile)
	r.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	cfg := Config{
		Conn: conn, Logger: slog.New(slog.NewTextHandler(r.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), Directory: r.Directory,
		Hosts: r.settings.Hosts, Wildcard: r.settings.Wildcard, Email: "ops@example.com", Roots: roots, Resolver: r.Resolver(), Version: "test", Now: r.now, Glance: 100 * time.Millisecond,
	}
	r.change(&cfg)
	r.must(cfg.Validate())
	return cfg
}

// agent joins a node whose public addresses are one of loopback. It serves HTTPS at the returned address.
func (r *rig) agent(node, ip string) (https string) {
	r.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, identity.JoinTokenFile))
	r.must(err)
	log := slog.New(slog.NewTextHandler(r.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	dir := r.TempDir()
	who, err := join.Join(r.Context(), join.Config{Server: r.url, Token: strings.TrimSpace(string(token)), NodeName: node, DataDir: dir, Logger: log})
	r.must(err)
	conn, err := who.Dial()
	r.must(err)
	var on ingress.Listeners
	for to, port := range map[*net.Listener]int{&on.Internal: 0, &on.PublicHTTP: r.port, &on.PublicHTTPS: 0} {
		if port != 0 && ip == "127.0.0.1" && r.first != nil {
			*to, r.first = r.first, nil
			continue
		}
		*to, err = new(net.ListenConfig).Listen(r.Context(), "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		r.must(err)
	}
	in := ingress.New(ingress.Config{
		Node: node, Logger: log, File: filepath.Join(dir, "routes.json"), CredentialsFile: filepath.Join(dir, "credentials.json"), Peers: who.Peers(),
		Endpoint: func(string, string) (string, func(), bool) { return "", nil, false },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context())) // the cleanup waits for it
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		if err := in.Run(ctx, on); err != nil && ctx.Err() == nil {
			r.Error(err)
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		if err := r.connect(ctx, conn, in, ip, on.Capabilities()); err != nil && ctx.Err() == nil {
			r.Error(err)
		}
	}()
	r.Cleanup(func() {
		stop()
		<-ended
		<-ended
		r.must(conn.Close())
	})
	r.await("the node has told its public address", func() error {
		n, err := carav1.NewNodeServiceClient(r.conn).GetNode(r.Context(), &carav1.GetRequest{Name: node})
		if err == nil && len(n.GetStatus().GetInfo().GetPublicAddresses()) == 0 {
			err = errors.New("no public address")
		}
		return err
	})
	return on.PublicHTTPS.Addr().String()
}

// connect does what an agent does on its stream for its ingress.
func (r *rig) connect(ctx context.Context, conn *grpc.ClientConn, in *ingress.Ingress, ip string, capabilities []string) error {
	stream, err := carav1.NewNodeServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&carav1.ConnectRequest{
		InstanceId: ip, Capabilities: capabilities,
		Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{Platform: "linux/amd64", PublicAddresses: []string{ip}}},
	})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetRoutes() != nil {
			in.Apply(m.GetRoutes())
		}
		if m.GetCredentials() != nil {
			in.ApplyCredentials(m.GetCredentials())
			if !r.mute.Load() {
				if err := stream.Send(&carav1.ConnectRequest{Confirms: true, Answering: in.Answering()}); err != nil {
					return err
				}
			}
		}
	}
}

// claim creates a project with public hosts.
func (r *rig) claim(name string, hosts ...string) {
	r.Helper()
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "web:1"}}},
	}
	for i, host := range hosts {
		p.Spec.Ingress = append(p.Spec.Ingress, &carav1.Ingress{
			Name: fmt.Sprintf("i%d", i), Host: host, Target: &carav1.IngressTarget{Service: "web", Port: 8080}, Access: &carav1.IngressAccess{Scope: api.ScopePublic},
		})
	}
	_, err := carav1.NewProjectServiceClient(r.conn).CreateProject(r.Context(), &carav1.CreateProjectRequest{Project: p})
	r.must(err)
}

// ready waits until the condition of a project is as given, and returns its message.
func (r *rig) ready(name, status, text string) string {
	r.Helper()
	var message string
	r.await("project "+name+" has CertificateReady "+status+" with "+text, func() error {
		p, err := carav1.NewProjectServiceClient(r.conn).GetProject(r.Context(), &carav1.GetRequest{Name: name})
		if err != nil {
			return err
		}
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
		if message = c.GetMessage(); c.GetStatus() != status || !strings.Contains(message, text) {
			return fmt.Errorf("it is %s: %s", c.GetStatus(), message)
		}
		return nil
	})
	return message
}

// shows waits until the ingress has a certificate of the authority for a host, and returns it.
func (r *rig) shows(https, host string) *x509.Certificate {
	r.Helper()
	var leaf *x509.Certificate
	r.await(https+" has the certificate of "+host, func() (err error) {
		leaf, err = r.peek(https, host, r.Roots())
		return err
	})
	return leaf
}

// peek returns the certificate that the ingress has for a host, if the roots trust it.
func (r *rig) peek(https, host string, roots *x509.CertPool) (*x509.Certificate, error) {
	d := &tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(r.Context(), "tcp", https)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], conn.Close()
}

func (r *rig) await(what string, check func() error) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	r.must(testcluster.WaitFor(ctx, what, func(context.Context) error { return check() }))
}

// orders returns how many orders the authority has got.
func (r *rig) orders() int { return strings.Count(r.Log(), "Added order ") }

// events returns the reasons of the events of a project about certificates.
func (r *rig) events(name string) string {
	r.Helper()
	out, err := carav1.NewEventServiceClient(r.conn).ListEvents(r.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: name})
	r.must(err)
	var all []string
	for _, e := range out.GetItems() {
		if strings.HasPrefix(e.GetReason(), "Certificate") {
			all = append(all, e.GetReason())
		}
	}
	return strings.Join(all, " ")
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

var errSame = errors.New("it has not changed")
