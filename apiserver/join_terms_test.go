package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
)

func TestJoinTokensHaveAnEndAndUses(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	c := newCluster(t, func(cfg *Config) { cfg.Now = func() time.Time { return now } })
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	if _, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "second"}, Role: api.RoleJoin,
	}}); err != nil {
		t.Fatal(err)
	}
	list, err := tokens.ListTokens(t.Context(), &carav1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, token := range list.GetItems() {
		if token.GetRole() != api.RoleJoin {
			continue
		}
		found++
		if token.GetUsesLeft() != 10 || !token.GetExpireAt().AsTime().Equal(now.Add(24*time.Hour)) {
			t.Errorf("token %s has %d uses and ends at %v", token.GetMetadata().GetName(), token.GetUsesLeft(), token.GetExpireAt().AsTime())
		}
	}
	if found != 2 {
		t.Errorf("%d join tokens, want the first one and the second", found)
	}
	if _, err := join.Join(t.Context(), c.joinConfig(t, "n1")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(24 * time.Hour)
	_, err = join.Join(t.Context(), c.joinConfig(t, "n2"))
	testproblem.Want(t, err, codes.Unauthenticated, "")
	if err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("after a day: %v", err)
	}
}

func TestAJoinTokenBoundsNamesAndLabels(t *testing.T) {
	c := newCluster(t, nil)
	made, err := carav1.NewTokenServiceClient(c.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "rack7"}, Role: api.RoleJoin, NodeNames: []string{"rack7-*"}, Labels: map[string]string{"rack": "7"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	try := func(node string, labels map[string]string) error {
		cfg := c.joinConfig(t, node)
		cfg.Token, cfg.Labels = made.GetSecret(), labels
		_, err := join.Join(t.Context(), cfg)
		return err
	}
	if err := try("n1", nil); err == nil || !strings.Contains(err.Error(), `is for nodes named rack7-*, not "n1"`) {
		t.Errorf("another name: %v", err)
	}
	if err := try("rack7-a", map[string]string{"rack": "8"}); err == nil || !strings.Contains(err.Error(), "does not allow the label rack=8") {
		t.Errorf("another label: %v", err)
	}
	if err := try("rack7-a", nil); err != nil {
		t.Fatal(err)
	}
	n, _ := state.Get[*carav1.Node](c.db.Cache, "rack7-a")
	if n.GetMetadata().GetLabels()["rack"] != "7" {
		t.Errorf("labels %v", n.GetMetadata().GetLabels())
	}
	if _, exists := state.Get[*carav1.Node](c.db.Cache, "n1"); exists {
		t.Error("a refused join has registered the node")
	}
	left, _ := state.Get[*carav1.Token](c.db.Cache, "rack7")
	if left.GetUsesLeft() != 9 {
		t.Errorf("%d uses left: a refused join must not cost one", left.GetUsesLeft())
	}
}

// oneCommit finds out whether transactions of a token meet in the store.
type oneCommit struct {
	store.Store
	token string
	now   *atomic.Int32
	met   *atomic.Bool
}

func (s oneCommit) Commit(ctx context.Context, tx store.Txn) (int64, error) {
	if slices.ContainsFunc(tx.Do, func(op store.Op) bool { return strings.HasSuffix(op.Key, "/"+s.token) }) {
		if s.now.Add(1) > 1 {
			s.met.Store(true)
		}
		defer s.now.Add(-1)
	}
	return s.Store.Commit(ctx, tx)
}

// TestManyNodesJoinTogether: each of them changes the token. If they ran at once, some would conflict more often than a transaction tries.
func TestManyNodesJoinTogether(t *testing.T) {
	const nodes = 48
	watched := oneCommit{token: "rack", now: new(atomic.Int32), met: new(atomic.Bool)}
	c := newCluster(t, func(cfg *Config) { watched.Store, cfg.Store = cfg.Store, &watched })
	made, err := carav1.NewTokenServiceClient(c.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "rack"}, Role: api.RoleJoin, UsesLeft: nodes,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var all errgroup.Group
	for i := range nodes {
		cfg := c.joinConfig(t, fmt.Sprintf("n%d", i))
		cfg.Token = made.GetSecret()
		all.Go(func() error {
			_, err := join.Join(t.Context(), cfg)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if watched.met.Load() {
		t.Error("two joins were in the store at the same time")
	}
	if left, _ := state.Get[*carav1.Token](c.db.Cache, "rack"); left.GetUsesLeft() >= 0 {
		t.Errorf("%d uses left", left.GetUsesLeft())
	}
}

func TestATakenOverNodeIsAWarning(t *testing.T) {
	c := newCluster(t, nil)
	want := []string{"Normal Joined", "Warning Rejoined"}
	for range want {
		if _, err := join.Join(t.Context(), c.joinConfig(t, "n1")); err != nil {
			t.Fatal(err)
		}
	}
	list, err := carav1.NewEventServiceClient(c.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindNode, Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list.GetItems() {
		if strings.HasSuffix(e.GetReason(), "oined") {
			got = append(got, e.GetType()+" "+e.GetReason())
			if !strings.Contains(e.GetMessage(), "from 127.0.0.1") {
				t.Errorf("the event does not say where it came from: %s", e.GetMessage())
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
