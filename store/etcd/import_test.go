package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

func importing(t *testing.T, c *testetcd.Cluster) (*Store, *Lease) {
	t.Helper()
	s := openTest(t, c, Config{Prefix: "/import/", Importing: true})
	return s, acquire(t, s, LeaseCopy, "import")
}

// An import that is interrupted leaves a prefix that no server opens, and can begin again.
func TestImport(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	var page store.Page
	for i := range 300 {
		page.KVs = append(page.KVs, store.KV{Key: fmt.Sprintf("k/%05d", i), Value: make([]byte, 1+i*50)})
	}
	page.KVs = append(page.KVs, store.KV{Key: "large/1", Value: make([]byte, store.MaxValue)}, store.KV{Key: "large/2", Value: make([]byte, store.MaxValue)})

	s, l := importing(t, c)
	must(t, s.clearPartial(t.Context(), l))
	mustCommit(t, s, put("rest of an import", 1))
	must(t, s.Close())
	if _, err := Open(t.Context(), Config{Endpoints: c.Endpoints, Prefix: "/import/"}); err == nil || !strings.Contains(err.Error(), "cara-server migrate") {
		t.Errorf("open an incomplete import: %v", err)
	}

	s, l = importing(t, c)
	must(t, s.Import(t.Context(), l, page))
	if err := s.Import(t.Context(), l, page); err == nil || !strings.Contains(err.Error(), "choose another --etcd-prefix") {
		t.Errorf("import over objects: %v", err)
	}
	must(t, s.Close())
	got, err := openTest(t, c, Config{Prefix: "/import/"}).List(t.Context(), "", store.ListOptions{})
	must(t, err)
	must(t, Equal(page, got))
}

func TestImportNeedsItsLease(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s, l := importing(t, c)
	l.Release()
	if err := s.Import(t.Context(), l, store.Page{}); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("an import without the lease: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Import(ctx, l, store.Page{}); err == nil {
		t.Error("an import with an ended context succeeded")
	}
}

func TestEqual(t *testing.T) {
	page := func(values ...string) (p store.Page) {
		for i, v := range values {
			p.KVs = append(p.KVs, store.KV{Key: fmt.Sprint(i), Value: []byte(v), Modified: int64(len(v))})
		}
		return p
	}
	for name, test := range map[string]struct {
		a, b store.Page
		want string
	}{
		"equal":   {page("a", "b"), page("a", "b"), ""},
		"value":   {page("a", "b"), page("a", "c"), "differs at 1"},
		"missing": {page("a", "b"), page("a"), "1 objects instead of 2"},
		"more":    {page("a"), page("a", "b"), "2 objects instead of 1"},
	} {
		if err := Equal(test.a, test.b); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
