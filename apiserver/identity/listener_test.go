package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// afar makes every connection look as if it came from another machine.
type afar struct{ net.Listener }

func (a afar) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return afarConn{conn}, nil
}

type afarConn struct{ net.Conn }

func (afarConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4} }

func (a afarConn) CloseWrite() error { return a.Conn.(*net.TCPConn).CloseWrite() }

// serve answers with the protocol, and whether the caller came in over TLS.
func serve(t *testing.T, id *Identity, wrap func(net.Listener) net.Listener) (address string) {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			kind := " plain"
			if r.TLS != nil {
				kind = " tls"
			}
			_, _ = io.WriteString(w, r.Proto+kind)
		}),
	}
	listener := NewListener(wrap(inner), id.TLSConfig())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return inner.Addr().String()
}

func client(t *testing.T, id *Identity, tune func(*http.Protocols)) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(id.CAPEM())
	var protocols http.Protocols
	tune(&protocols)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func TestListener(t *testing.T) {
	id := open(t, t.TempDir(), nil)
	here := func(l net.Listener) net.Listener { return l }
	away := func(l net.Listener) net.Listener { return afar{l} }
	http1 := func(p *http.Protocols) { p.SetHTTP1(true) }
	http2 := func(p *http.Protocols) { p.SetHTTP2(true) }
	h2c := func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }
	tests := []struct {
		name   string
		from   func(net.Listener) net.Listener
		scheme string
		tune   func(*http.Protocols)
		status int
		want   string
	}{
		{"TLS HTTP/1.1", here, "https", http1, 200, "HTTP/1.1 tls"},
		{"TLS HTTP/2", here, "https", http2, 200, "HTTP/2.0 tls"},
		{"TLS HTTP/2 from afar", away, "https", http2, 200, "HTTP/2.0 tls"},
		{"plaintext HTTP/1.1", here, "http", http1, 200, "HTTP/1.1 plain"},
		{"plaintext HTTP/2", here, "http", h2c, 200, "HTTP/2.0 plain"},
		{"plaintext HTTP/1.1 from afar", away, "http", http1, 400, "use https://"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			address := serve(t, id, test.from)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.scheme+"://"+address, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client(t, id, test.tune).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != test.status || !strings.Contains(string(body), test.want) {
				t.Errorf("%d %q %v, want %d %q", response.StatusCode, body, err, test.status, test.want)
			}
		})
	}
}

func TestListenerRefusesPlaintextGRPCFromAfar(t *testing.T) {
	id := open(t, t.TempDir(), nil)
	address := serve(t, id, func(l net.Listener) net.Listener { return afar{l} })
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = conn.Invoke(ctx, "/cara.v1.InfoService/GetInfo", &struct{}{}, &struct{}{}, grpc.ForceCodecV2(nothing{}))
	if err == nil || !strings.Contains(err.Error(), "HTTP/1.1") {
		t.Errorf("a plaintext call from afar: %v", err)
	}
}

// TestListenerSilentCaller: a silent caller blocks no other caller, and Close does not wait for it.
func TestListenerSilentCaller(t *testing.T) {
	id := open(t, t.TempDir(), nil)
	address := serve(t, id, func(l net.Listener) net.Listener { return l })
	var dialer net.Dialer
	for range 20 {
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client(t, id, func(p *http.Protocols) { p.SetHTTP1(true) }).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

func TestListenerCloseUnblocksAccept(t *testing.T) {
	id := open(t, t.TempDir(), nil)
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := NewListener(inner, id.TLSConfig())
	done := make(chan error)
	go func() {
		_, err := listener.Accept()
		done <- err
	}()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}

// nothing is a codec for a call whose message does not matter.
type nothing struct{}

func (nothing) Marshal(any) (mem.BufferSlice, error) { return nil, nil }
func (nothing) Unmarshal(mem.BufferSlice, any) error { return nil }
func (nothing) Name() string                         { return "nothing" }
