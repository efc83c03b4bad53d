package join

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestServersTakeTurns(t *testing.T) {
	s, err := newServers("https://a:1, b:2,a:1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for range 3 {
		order = append(order, s.first())
		s.next()
	}
	if got := strings.Join(order, " "); got != "a:1 b:2 a:1" {
		t.Errorf("the order is %s", got)
	}
	for name, list := range map[string]string{"a gap": "a:1,,b:2", "too many": many(maxServers + 1)} {
		if _, err := newServers(list, t.TempDir()); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func many(n int) string {
	var all []string
	for i := range n {
		all = append(all, "h"+string(rune('a'+i))+":1")
	}
	return strings.Join(all, ",")
}

// TestServersAreLearned: what a server tells is kept for the next start, the current server stays the current one, and what
// is no address is left out.
func TestServersAreLearned(t *testing.T) {
	dir := t.TempDir()
	s, err := newServers("a:1,b:2", dir)
	if err != nil {
		t.Fatal(err)
	}
	s.next()
	if err := s.learn([]string{"c:3", "b:2", "d", "ftp://x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.learn(nil); err != nil { // an older server
		t.Fatal(err)
	}
	want := []string{"b:2", "c:3", "d:" + defaultPort, "a:1"}
	if got := s.all(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	again, err := newServers("a:1", dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.all(), []string{"a:1", "c:3", "b:2", "d:" + defaultPort}; !slices.Equal(got, want) {
		t.Errorf("after a restart: %v, want %v", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, serversFile), []byte("[torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err = newServers("a:1", dir); err != nil || len(again.all()) != 1 {
		t.Errorf("with a torn file: %v", err)
	}
}

// TestAnotherServer: an agent joins at the server that answers, and a call goes to the next server after NextServer.
func TestAnotherServer(t *testing.T) {
	ca := newCA(t)
	one := serve(t, ca, serverName, x509.ExtKeyUsageServerAuth)
	two := serve(t, ca, serverName, x509.ExtKeyUsageServerAuth)
	cfg := one.config(t)
	one.fail = api.Unavailable("this server is starting")
	cfg.Server = "127.0.0.1:1," + one.addr + "," + two.addr
	c, err := Join(t.Context(), cfg)
	if err != nil || one.joins != 1 || two.joins != 1 {
		t.Fatalf("%v after %d and %d tries", err, one.joins, two.joins)
	}
	one.fail = nil
	conn, err := c.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() {
		t.Helper()
		if _, err := carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{}); err != nil && api.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	asked := func(s *fakeServer) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.peers)
	}
	for range 4 {
		ask()
		c.NextServer()
	}
	for asked(one) == 0 || asked(two) == 0 { // a call may meet the closed connection
		ask()
		c.NextServer()
	}
}
