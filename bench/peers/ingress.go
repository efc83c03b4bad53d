package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

const (
	webHost = "web.bench.test"
	webPort = 8080
)

// way is one way to the same container.
type way struct {
	column, address string
	pid             int // of the proxy in between; 0: none
}

// ingress sends requests to one container: directly, through a bare httputil.ReverseProxy in a process of its own, and
// through the agent. They take turns.
func (c *cluster) ingress(ctx context.Context, o options, out *table) (err error) {
	name := c.name + "web"
	defer func() { err = errors.Join(err, c.deleteAll(context.WithoutCancel(ctx), name)) }()
	if err := c.createWeb(ctx, name); err != nil {
		return err
	}
	target, err := c.engine.address(ctx, "cara-"+name+".web")
	if err != nil {
		return err
	}
	proxy, err := startProxy(ctx, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.end()) }()
	ways := []way{{direct, target, 0}, {byProxy, proxy.address, proxy.cmd.Process.Pid}, {byCara, c.entry, c.Agents[node].Pid()}}
	rates, tails, costs := map[string][]float64{}, map[string][]time.Duration{}, map[string][]float64{}
	defer func() {
		for _, w := range ways {
			if len(rates[w.column]) == 0 {
				continue
			}
			middle, lowest, highest := spread(rates[w.column])
			out.set("GET by 16 clients, requests/s", w.column, fmt.Sprintf("%.0f (%.0f-%.0f)", middle, lowest, highest))
			p99, best, worst := spread(tails[w.column])
			ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
			out.set("p99", w.column, fmt.Sprintf("%.2f ms (%.2f-%.2f)", ms(p99), ms(best), ms(worst)))
			if w.pid != 0 {
				cost, _, _ := spread(costs[w.column])
				out.set("the proxy's processor time a request", w.column, fmt.Sprintf("%.0f µs", cost))
			}
		}
	}()
	for range o.runs {
		for _, w := range ways {
			var before, after testcluster.Usage
			if w.pid != 0 {
				if before, err = testcluster.UsageOf(w.pid); err != nil {
					return err
				}
			}
			got, err := press(ctx, w.address, o.press)
			if err != nil {
				return fmt.Errorf("%s: %w", w.column, err)
			}
			if w.pid != 0 {
				if after, err = testcluster.UsageOf(w.pid); err != nil {
					return err
				}
				costs[w.column] = append(costs[w.column], (after.Processor-before.Processor).Seconds()*1e6/float64(got.requests))
			}
			rates[w.column], tails[w.column] = append(rates[w.column], got.rate), append(tails[w.column], got.p99)
			fmt.Fprintf(os.Stderr, "%-24s %6.0f requests/s, p99 %s   load %s\n", w.column, got.rate, got.p99.Round(10*time.Microsecond), load())
		}
	}
	return nil
}

// createWeb brings a web service up and waits until the ingress answers for it.
func (c *cluster) createWeb(ctx context.Context, name string) error {
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{{Name: "web", Image: testimage.WebV1}},
			Ingress:  []*carav1.Ingress{{Name: "web", Host: webHost, Target: &carav1.IngressTarget{Service: "web", Port: webPort}}},
		},
	}
	if err := c.applyAll(ctx, &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(p)}}); err != nil {
		return err
	}
	return c.running(ctx, name)
}

// address is where a container's web service is reached from this machine.
func (e *engine) address(ctx context.Context, name string) (string, error) {
	var c struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := e.call(ctx, http.MethodGet, "/containers/"+name+"/json", nil, &c); err != nil {
		return "", err
	}
	for _, n := range c.NetworkSettings.Networks {
		return net.JoinHostPort(n.IPAddress, fmt.Sprint(webPort)), nil
	}
	return "", fmt.Errorf("container %s has no address", name)
}

// proxy is this program again, as a reverse proxy and nothing else.
type proxy struct {
	cmd     *exec.Cmd
	address string
}

func startProxy(ctx context.Context, target string) (*proxy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "-proxy-to", target)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &proxy{cmd: cmd}
	if p.address, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("start a proxy: %w", err), p.end())
	}
	p.address = strings.TrimSpace(p.address)
	return p, nil
}

func (p *proxy) end() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("end the proxy: %w", err)
	}
	_ = p.cmd.Wait() // it was killed
	return nil
}

// serveProxy is the other end of startProxy: what a page of documentation would have one write, but for the connections that it keeps.
func serveProxy(ctx context.Context, target string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println(l.Addr())
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: target})
			p.SetXForwarded()
		},
	}}
	return srv.Serve(l)
}
