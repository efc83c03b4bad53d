package program

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
)

// TestServesAgainAfterACompaction: a server that was cut off from etcd until etcd had dropped what it missed reads everything again and
// serves, in the same process.
func TestServesAgainAfterACompaction(t *testing.T) {
	members := testetcd.Start(t, testetcd.Config{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	link, err := testlink.Loopback(t.Context(), strings.TrimPrefix(members.Endpoints[0], "http://"))
	must(err)
	defer func() { must(link.Close()) }()
	serving, ended := make(chan string), make(chan error, 1)
	c := ServerConfig{
		DataDir: t.TempDir(), Store: storeEtcd, Etcd: EtcdConfig{Endpoints: []string{"http://" + link.Addr()}}, Listen: "127.0.0.1:0",
		ContextsFile: "none", Logger: slog.New(slog.DiscardHandler), Serving: func(url string) { serving <- url },
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { ended <- c.Run(ctx) }()
	await := func() {
		t.Helper()
		select {
		case url := <-serving:
			for !ready(t, url) { // then it follows etcd
				select {
				case <-time.After(20 * time.Millisecond):
				case err := <-ended:
					t.Fatalf("the server has ended: %v", err)
				}
			}
		case err := <-ended:
			t.Fatalf("the server has ended: %v", err)
		}
	}
	await()
	link.Hold()
	link.Break(t.Context())
	other, err := etcd.Open(t.Context(), etcd.Config{Endpoints: members.Endpoints, Prefix: "/other/"})
	must(err)
	defer func() { must(other.Close()) }()
	for range 3 {
		now, err := other.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: "a", Value: []byte("v")}}})
		must(err)
		must(other.Compact(t.Context(), now))
	}
	link.Release()
	await()
	stop()
	must(<-ended)
}

// ready reports whether a server says that it is ready.
func ready(t *testing.T, url string) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
}
