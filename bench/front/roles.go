package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/agent/ports"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/garbage"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// be is one process of a run. It prints its addresses, and ends when its standard input does.
func (o options) be(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	profiled, err := o.profile()
	if err != nil {
		return err
	}
	go func() {
		defer cancel() // when the parent ends, however it does
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := o.heap(); err != nil {
				fmt.Fprintln(os.Stderr, "front:", err)
			}
		}
	}()
	role, ok := map[string]func(context.Context) error{"backend": o.backend, "bare": o.bare, "cara": o.cara}[o.role]
	if !ok {
		return fmt.Errorf("there is no role %q", o.role)
	}
	return errors.Join(role(ctx), profiled())
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

// serveAll serves until ctx ends.
func serveAll(ctx context.Context, serve ...func() error) error {
	var all errgroup.Group
	for _, one := range serve {
		all.Go(one)
	}
	<-ctx.Done()
	return nil // the process ends with its connections
}

// accept serves each connection of a listener.
func accept(l net.Listener, serve func(net.Conn)) func() error {
	return func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go serve(c)
		}
	}
}

// backend answers every request with 1 KiB, /big with a large body, and each TCP connection with as much after one byte.
func (o options) backend(ctx context.Context) error {
	page, zeros := make([]byte, 1<<10), make([]byte, 1<<20)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		_, _ = w.Write(page)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(o.size, 10))
		for left := o.size; left > 0; left -= int64(len(zeros)) {
			_, _ = w.Write(zeros[:min(left, int64(len(zeros)))])
		}
	})
	web, err := listen(ctx)
	if err != nil {
		return err
	}
	raw, err := listen(ctx)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	fmt.Printf("http %s\ntcp %s\n\n", web.Addr(), raw.Addr())
	return serveAll(ctx, func() error { return srv.Serve(web) }, accept(raw, func(c net.Conn) {
		defer c.Close()
		var how [1]byte
		for {
			if _, err := c.Read(how[:]); err != nil {
				return
			}
			if how[0] == 'p' { // a ping
				_, _ = c.Write(how[:])
				continue
			}
			for left := o.size; left > 0; left -= int64(len(zeros)) {
				if _, err := c.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
					return
				}
			}
			return
		}
	}))
}

// backends returns where the backend is.
func (o options) backends() (web, raw string, err error) {
	data, err := os.ReadFile(filepath.Join(o.dir, "backend"))
	web, raw, _ = strings.Cut(string(data), " ")
	return web, raw, err
}

// bare is a httputil.ReverseProxy as a page of documentation has it, but for the connections that it keeps, and two io.Copy.
func (o options) bare(ctx context.Context) error {
	web, raw, err := o.backends()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(o.dir, chainFile), filepath.Join(o.dir, keyFile))
	if err != nil {
		return err
	}
	var on [3]net.Listener
	for i := range on {
		if on[i], err = listen(ctx); err != nil {
			return err
		}
	}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: web})
			p.SetXForwarded()
		},
	}
	plain := &http.Server{ReadHeaderTimeout: time.Minute, Handler: proxy}
	secure := &http.Server{
		ReadHeaderTimeout: time.Minute, Handler: proxy, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	fmt.Printf("http %s\nhttps %s\ntcp %s\n\n", on[0].Addr(), on[1].Addr(), on[2].Addr())
	return serveAll(ctx, func() error { return plain.Serve(on[0]) }, func() error { return secure.ServeTLS(on[1], "", "") },
		accept(on[2], func(c net.Conn) {
			defer c.Close()
			to, err := new(net.Dialer).DialContext(ctx, "tcp", raw)
			if err != nil {
				return
			}
			defer to.Close()
			go func() {
				_, _ = io.Copy(to, c)
				_ = to.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(c, to)
		}))
}

// cara is the ingress and the ports of an agent, with the routes that a server would send.
func (o options) cara(ctx context.Context) error {
	web, raw, err := o.backends()
	if err != nil {
		return err
	}
	chain, chainErr := os.ReadFile(filepath.Join(o.dir, chainFile))
	key, keyErr := os.ReadFile(filepath.Join(o.dir, keyFile))
	var on ingress.Listeners
	var errs [3]error
	on.Internal, errs[0] = listen(ctx)
	on.PublicHTTP, errs[1] = listen(ctx)
	on.PublicHTTPS, errs[2] = listen(ctx)
	tcp, tcpErr := testcluster.FreeAddress()
	if err := errors.Join(chainErr, keyErr, errs[0], errs[1], errs[2], tcpErr); err != nil {
		return err
	}
	endpoint := func(string, string) (string, func(), bool) { return "127.0.0.1", func() {}, true }
	log, most := slog.New(slog.DiscardHandler), 2*o.idle+1000
	open := ports.New(ports.Config{
		Node: "n1", Logger: log, Endpoint: endpoint, Endpoints: func() <-chan struct{} { return nil },
		Offer:  &carav1.PortOffer{Ports: []string{strconv.Itoa(int(portOf(tcp)))}, InternalAddress: "127.0.0.1"},
		Limits: ports.Limits{Connections: most, ClientConnections: most},
	})
	in := ingress.New(ingress.Config{
		Node: "n1", Logger: log, Endpoint: endpoint, Pass: open.Pass, Limits: ingress.Limits{Connections: most, ClientConnections: most},
	})
	in.Apply(o.routes(portOf(web)))
	in.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{{Id: "a", Names: []string{host}, Chain: chain, Key: key}}})
	open.Apply(&carav1.Routes{Full: true, Ports: []*carav1.ProjectPorts{{Project: "p", Node: "n1", Ports: []*carav1.ProjectPort{
		{Name: "tcp", Port: portOf(tcp), Target: &carav1.IngressTarget{Service: "w", Port: portOf(raw)}},
	}}}})
	fmt.Printf("http %s\nhttps %s\ntcp %s\n\n", on.PublicHTTP.Addr(), on.PublicHTTPS.Addr(), tcp)
	return serveAll(ctx, func() error { return in.Run(ctx, on) }, func() error { return garbage.Run(ctx, garbage.Agent) }, func() error { return open.Run(ctx) })
}

func (o options) routes(port int32) *carav1.Routes {
	route := func(name, mode string) *carav1.Route {
		return &carav1.Route{Host: name, Project: "p", Service: "w", Port: port, Node: "n1", Scope: api.ScopePublic, Tls: &carav1.IngressTLS{Mode: mode}}
	}
	all := &carav1.Routes{Full: true, Upserts: []*carav1.Route{route(host, ""), route(plainHost, api.TLSOff)}}
	for n := range o.many {
		all.Upserts = append(all.Upserts, route(hostNumber(n), api.TLSOff))
	}
	return all
}

func hostNumber(n int) string { return fmt.Sprintf("host%05d.test", n) }

func portOf(address string) int32 {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseInt(port, 10, 32) // the addresses are those of listeners
	return int32(n)
}

// addresses reads what a process of this program prints first.
func addresses(from io.Reader) (map[string]string, error) {
	at := map[string]string{}
	for lines := bufio.NewScanner(from); lines.Scan(); {
		name, address, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return at, nil
		}
		at[name] = address
	}
	return nil, errors.New("it ended before it was ready")
}
