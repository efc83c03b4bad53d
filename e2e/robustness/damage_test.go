package robustness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestDamagedLogIsRefused kills the real server and flips a byte of its last acknowledged write. The next start fails and
// says what to do, and with the byte put right every acknowledged project is there.
func TestDamagedLogIsRefused(t *testing.T) {
	testneed.NotShort(t)
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		must(t, err)
	}
	must(testcluster.Build(t.Context(), dir))
	c, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: dir})
	must(err)
	must(c.StartServer(t.Context()))
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	projects, err := c.Projects()
	must(err)
	const n = 20
	for i := range n {
		_, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i)},
			Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "example.test/web:1"}}},
		}})
		must(err)
	}
	must(testcluster.WaitFor(t.Context(), "the loops have nothing more to write", func(ctx context.Context) error {
		list, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
		for _, p := range list.GetItems() {
			if api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetReason() != "Unschedulable" {
				return fmt.Errorf("the scheduler has not looked at %s", p.GetMetadata().GetName())
			}
		}
		return err
	}))
	must(c.Server.Kill())

	store := filepath.Join(c.DataDir(), "store")
	logs, err := filepath.Glob(filepath.Join(store, "*.log"))
	must(err)
	log := slices.Max(logs)
	data, err := os.ReadFile(log)
	must(err)
	last := len(bytes.TrimRight(data, "\x00")) - 1
	data[last] ^= 0x40
	must(os.WriteFile(log, data, 0o600))

	err = c.StartServer(t.Context())
	if err == nil {
		t.Fatal("the server starts without its last write")
	}
	t.Log(err)
	for _, part := range []string{"has lost acknowledged writes", "restore the data directory from a backup", filepath.Join(store, "acknowledged")} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the server does not say %q", part)
		}
	}

	data[last] ^= 0x40
	must(os.WriteFile(log, data, 0o600))
	must(c.StartServer(t.Context()))
	list, err := projects.ListProjects(t.Context(), &carav1.ListProjectsRequest{})
	must(err)
	if got := len(list.GetItems()); got != n {
		t.Errorf("%d projects, want %d", got, n)
	}
}
