package e2e

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// calls is a project whose service speaks gRPC.
func (i *internet) calls(name, image, greeting string) string {
	return project(name, `
services:
- name: web
  image: `+image+`
  update: {order: start-first}
  env: [{name: GREETING, value: `+greeting+`}]
  healthcheck: {http: {path: /healthz, port: 8080}, interval: 200ms, timeout: 5s, retries: 5}
ingress:
- name: calls
  host: `+name+`.test
  target: {service: web, port: 8080, protocol: H2C}
  access: {scope: Public}
  tls: {secretRef: `+name+`}
- name: pages
  host: `+name+`.test
  path: /ws
  target: {service: web, port: 8080}
  access: {scope: Public}
  tls: {secretRef: `+name+`}`)
}

// dialGRPC connects to a host through the public address or an agent's internal one.
func (i *internet) dialGRPC(host, address string, how credentials.TransportCredentials) *grpc.ClientConn {
	i.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(how), grpc.WithAuthority(host))
	i.must(err)
	i.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestGRPC: clients of the internet and inside call a service on another node, also while it is updated.
func TestGRPC(t *testing.T) {
	i := publicNodes(t)
	w := i.testCluster
	shop := w.name("shop")
	host := shop + ".test"
	i.certificate(shop, host)
	r := w.ctl(i.calls(shop, testimage.WebV1, "one"), "apply", "--wait", "-f", "-")
	w.says("apply --wait", r.Stdout, "https://"+host+"/\n")
	w.says("get routes", w.ctl("", "get", "routes").Stdout, "web:8080 (H2C)", "web:8080 ")
	w.says("describe project", w.ctl("", "describe", "project", shop).Stdout, "web:8080 (H2C)")
	i.gets(i.client(true), "https://"+host+"/", 200, "web v1") // HTTP/2 all the way

	public := i.dialGRPC(host, i.https, credentials.NewTLS(&tls.Config{RootCAs: i.roots, ServerName: host}))
	inside := i.dialGRPC(host, w.ingress["n1"], insecure.NewCredentials())
	for name, conn := range map[string]*grpc.ClientConn{"public": public, "inside": inside} {
		version, err := echo(t, conn)
		if err != nil || version != "v1" {
			t.Errorf("%s: %q, %v", name, version, err)
		}
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/web.Echo/Talk")
		w.must(err)
		for n := range 3 {
			out := new(wrapperspb.StringValue)
			w.must(stream.SendMsg(wrapperspb.String(fmt.Sprint("message ", n))))
			if err := stream.RecvMsg(out); err != nil || out.GetValue() != fmt.Sprint("message ", n) {
				t.Errorf("%s: %q, %v", name, out.GetValue(), err)
			}
		}
		w.must(stream.CloseSend())
	}
	nobody := i.dialGRPC("nobody.test", w.ingress["n1"], insecure.NewCredentials())
	if _, err := echo(t, nobody); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown host: %v", err)
	}
	socket := i.webSocket(host)
	w.must(socket.echoes("beside"))

	w.sub("no call fails in an update", func(w *testCluster) {
		var ended atomic.Bool
		var made atomic.Int64
		var all errgroup.Group
		for _, conn := range []*grpc.ClientConn{public, inside, public, inside} {
			all.Go(func() error {
				for !ended.Load() {
					if _, err := echo(t, conn); err != nil {
						return err
					}
					made.Add(1)
				}
				return nil
			})
		}
		for n := range 3 {
			before := serves(w.project(shop))
			w.apply(i.calls(shop, []string{testimage.WebV2, testimage.WebV1, testimage.WebV2}[n], fmt.Sprint("update ", n)))
			w.running(shop)
			if serves(w.project(shop)) == before {
				w.Error("the container is the same")
			}
		}
		ended.Store(true)
		w.must(all.Wait())
		if version, err := echo(t, public); err != nil || version != "v2" || made.Load() == 0 {
			w.Errorf("after %d calls: %q, %v", made.Load(), version, err)
		}
	})
}

// echo makes a call and returns the version of its service.
func echo(t *testing.T, conn *grpc.ClientConn) (version string, err error) {
	var header metadata.MD
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(t.Context(), "/web.Echo/Call", wrapperspb.String("hello"), out, grpc.Header(&header)); err != nil {
		return "", err
	}
	if out.GetValue() != "hello" {
		return "", fmt.Errorf("the echo of hello is %q", out.GetValue())
	}
	return header.Get("x-version")[0], nil
}
