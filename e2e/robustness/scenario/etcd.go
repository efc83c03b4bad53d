package scenario

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/e2e/robustness/fault"
	"github.com/caravanserai/cara/internal/test/testlink"
)

// etcdFlags are the flags of the server with this number. It reaches each member of etcd over a link of its own.
func (r *run) etcdFlags(t *testing.T, i int) []string {
	t.Helper()
	var endpoints []string
	for member, url := range r.target.Etcd.Endpoints {
		link, err := testlink.Start(t.Context(), testlink.Address{Network: "tcp", Name: "127.0.0.1:0"},
			testlink.Address{Network: "tcp", Name: strings.TrimPrefix(url, "http://")})
		r.must(t, err)
		t.Cleanup(func() {
			if err := link.Close(); err != nil {
				t.Error(err)
			}
		})
		r.target.Links[fmt.Sprintf("%s%d to member %d", fault.EtcdLink, i, member)] = link
		endpoints = append(endpoints, "http://"+link.Addr())
	}
	if r.keyFile == "" {
		r.keyFile = filepath.Join(t.TempDir(), "cluster.key")
	}
	return []string{"--store", "etcd", "--etcd-endpoints", strings.Join(endpoints, ","), "--etcd-prefix", "/robustness/", "--cluster-key-file", r.keyFile}
}
