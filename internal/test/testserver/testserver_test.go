package testserver

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func echo(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(w, r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
}

func post(t *testing.T, client *http.Client, url, body string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return string(answer), err
}

func TestDownUpAndCounts(t *testing.T) {
	s, err := Start(t.Context(), Config{Handler: http.HandlerFunc(echo)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	url := s.URL() + "/a?b=c"
	if got, err := post(t, http.DefaultClient, url, "hello"); err != nil || got != "hello" {
		t.Fatalf("up: %q, %v", got, err)
	}
	if err := s.Down(); err != nil {
		t.Fatal(err)
	}
	if got, err := post(t, http.DefaultClient, url, "hello"); err == nil {
		t.Fatalf("down: answered %q", got)
	}
	if err := s.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := post(t, http.DefaultClient, url, "again"); err != nil || got != "again" {
		t.Fatalf("up again at %s: %q, %v", url, got, err)
	}
	if requests, in, out := s.Totals(); requests != 2 || in != 10 || out != 10 {
		t.Errorf("totals %d requests, %d bytes in, %d out; want 2, 10, 10", requests, in, out)
	}
	want := Request{Method: "POST", Path: "/a", Query: "b=c", Status: 200, BytesIn: 5, BytesOut: 5}
	if log := s.Log(); len(log) != 2 || log[0] != want {
		t.Errorf("log %+v, want two of %+v", log, want)
	}
}

func TestDelay(t *testing.T) {
	s, err := Start(t.Context(), Config{Handler: http.HandlerFunc(echo)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Delay(time.Hour)
	impatient := &http.Client{Timeout: 50 * time.Millisecond}
	if got, err := post(t, impatient, s.URL(), "x"); err == nil {
		t.Errorf("answered %q in spite of the delay", got)
	}
	s.Delay(0)
	if got, err := post(t, http.DefaultClient, s.URL(), "x"); err != nil {
		t.Errorf("without delay: %q, %v", got, err)
	}
}

func TestTLS(t *testing.T) {
	config, authority, err := Certificate()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), Config{Handler: http.HandlerFunc(echo), TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := post(t, http.DefaultClient, s.URL(), "x"); err == nil {
		t.Error("a client that does not know the certificate was served")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if got, err := post(t, trusting, s.URL(), "x"); err != nil || got != "x" {
		t.Errorf("with the certificate: %q, %v", got, err)
	}
}
