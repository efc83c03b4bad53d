package agent_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// TestRealLoginEndsDuringThePull has logins that a credential helper gives and that end after some blobs of an image, with
// their tokens. A pull is tried again with the next login, and never with the one that has ended.
func TestRealLoginEndsDuringThePull(t *testing.T) {
	t.Parallel()
	// The engine shares the layers that it is pulling between pulls from all registries. Here it must have the shared ones.
	open := testregistry.New(t)
	has := open.Push(t, testimage.WebV1, "has:1")
	discard(t, has)
	if _, err := newReal(t).cfg.Engine.PullImage(t.Context(), has, nil, func(engine.Progress) {}); err != nil {
		t.Fatal(err)
	}
	const ada, planted = "ada", "hunter2-planted"
	for name, c := range map[string]struct {
		user    string
		goodFor []int  // the blobs after which each login ends; 0 is never
		gives   string // what the helper gives; empty: the login of the moment
		phase   string
		backoff bool // a pull fails, with the advice that another follows
		asks    int  // of the helper
		refused bool // the token service has seen a login that is not right
	}{
		"never":               {ada, []int{0}, "", api.PhaseRunning, false, 1, false},
		"once":                {ada, []int{1, 0}, "", api.PhaseRunning, false, 2, false},
		"once, of a token":    {testregistry.IdentityToken, []int{1, 0}, "", api.PhaseRunning, false, 2, false},
		"twice":               {ada, []int{1, 1, 0}, "", api.PhaseRunning, false, 3, false},
		"in three pulls":      {ada, []int{1, 1, 1, 0}, "", api.PhaseRunning, true, 4, false},
		"before, same again":  {ada, []int{0}, "wrong", api.PhaseFailed, false, 2, true},
		"before, others":      {ada, []int{0}, "wrong-$count", api.PhaseFailed, false, 3, true},
		"before, right later": {ada, []int{0}, "$(test $count = 1 && echo wrong || echo " + planted + "-0)", api.PhaseRunning, false, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := testregistry.New(t)
			tag := "ends:" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
			registry.PushPadded(t, testimage.WebV1, tag, 1<<16)
			discard(t, registry.Ref(tag))
			helper, give := testregistry.NewLoginHelper(t, c.user)
			if c.gives != "" {
				helper = testregistry.NewHelper(t, `echo '{"Username":"ada","Secret":"'`+c.gives+`'"}'`)
			}
			number := 0
			login := func() (string, int) {
				password, blobs := fmt.Sprintf("%s-%d", planted, number), c.goodFor[number]
				number++
				give(password)
				return password, blobs
			}
			password, blobs := login()
			registry.TokenLogin(c.user, password)
			registry.LoginEndsAfter(blobs, login)
			r := newReal(t)
			helpers, err := image.ParseHelpers([]string{registry.Addr() + "=" + helper.Path})
			if err != nil {
				t.Fatal(err)
			}
			r.cfg.Helpers = helpers
			r.run(t)
			project := fmt.Sprintf("ends-%s-%d", strings.TrimPrefix(tag, "ends:"), os.Getpid())
			r.put(project, pulled(registry.Ref(tag)))
			backoff := false
			p := r.wait(t, project, func(p *carav1.Project) bool {
				if text := p.String(); strings.Contains(text, planted) || strings.Contains(text, "wrong") {
					t.Errorf("a login is in the status:\n%s", text)
				}
				c := api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady)
				backoff = backoff || c.GetReason() == "PullBackoff" && strings.Contains(c.GetMessage(), "ended during the pull")
				return phase(api.PhaseRunning)(p) || phase(api.PhaseFailed)(p)
			})
			if p.GetStatus().GetPhase() != c.phase || backoff != c.backoff {
				t.Errorf("the project is %s, want %s; backoff %v, want %v:\n%v", p.GetStatus().GetPhase(), c.phase, backoff, c.backoff, p.GetStatus().GetConditions())
			}
			if _, refused := registry.TokenRequests(); refused > 0 != c.refused || len(helper.Asked()) != c.asks {
				t.Errorf("the registry refused %d logins, want some: %v; the helper was asked %d times, want %d", refused, c.refused, len(helper.Asked()), c.asks)
			}
		})
	}
}
