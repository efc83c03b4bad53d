package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

const hookSecret = "planted-c0ffee"

// hooked is a server with an identity and a source that accepts a provider's deliveries.
func hooked(t *testing.T, provider string) *cluster {
	t.Helper()
	c := newCluster(t, nil)
	c.secret(t, "hook", "", map[string]string{"secret": hookSecret})
	c.hook(t, "platform", provider, "hook")
	return c
}

func (c *cluster) hook(t *testing.T, name, provider, secret string) {
	t.Helper()
	spec := &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.test/platform.git"}}
	if provider != "" {
		spec.Webhook = &carav1.Webhook{Provider: provider, SecretRef: secret}
	}
	_, err := carav1.NewSourceServiceClient(c.admin(t)).CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: spec,
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// deliver posts a delivery over the network, without any token.
func (c *cluster) deliver(t testing.TB, source, body string, header ...string) answer {
	t.Helper()
	return (&house{Server: c.Server, addr: c.addr}).do(t, "", http.MethodPost, "/api/v1/sources/"+source+"/webhook", body, header...)
}

func (c *cluster) last(t *testing.T, source string) *carav1.Delivery {
	t.Helper()
	src, err := carav1.NewSourceServiceClient(c.admin(t)).GetSource(t.Context(), &carav1.GetRequest{Name: source})
	if err != nil {
		t.Fatal(err)
	}
	return src.GetStatus().GetPoll().GetLastDelivery()
}

const push = `{"ref":"refs/heads/main"}`

// headers of a real push of each provider.
func headers(provider, id, secret, body string) []string {
	switch provider {
	case "GitHub":
		return []string{"X-GitHub-Event", "push", "X-GitHub-Delivery", id, "X-Hub-Signature-256", "sha256=" + sign(secret, body)}
	case "GitLab":
		return []string{"X-Gitlab-Event", "Push Hook", "X-Gitlab-Event-UUID", "one-for-all-hooks", "Idempotency-Key", id, "X-Gitlab-Token", secret}
	case "Gitea":
		return []string{"X-Gitea-Event", "push", "X-Gitea-Delivery", id, "X-Gitea-Signature", sign(secret, body)}
	case "Bitbucket":
		return []string{"X-Event-Key", "repo:push", "X-Request-UUID", id, "X-Hub-Signature", "sha256=" + sign(secret, body)}
	}
	return []string{"X-Event", "whatever", "X-Delivery", id, "X-Signature", "sha256=" + sign(secret, body)}
}

func (c *cluster) hints(t *testing.T) <-chan *carav1.Hint {
	t.Helper()
	loop, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := carav1.NewSourceServiceClient(loop).WatchHints(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	out, done, listens := make(chan *carav1.Hint, 1000), make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		for {
			hint, err := stream.Recv()
			if err != nil {
				return
			}
			if hint.GetSource() == "listening" {
				once.Do(func() { close(listens) })
				continue
			}
			out <- hint
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	await(t, func() bool {
		c.live.Hints.Tell("listening", &carav1.Delivery{})
		select {
		case <-listens:
			return true
		default:
			return false
		}
	})
	return out
}

// await waits on a condition.
func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(60 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen within a minute")
		}
	}
}

func TestWebhookOfEachProvider(t *testing.T) {
	for _, provider := range []string{"GitHub", "GitLab", "Gitea", "Bitbucket", "Generic"} {
		t.Run(provider, func(t *testing.T) {
			c := hooked(t, provider)
			hints := c.hints(t)
			before := c.db.Cache.Revision()
			if a := c.deliver(t, "platform", push, headers(provider, "id-1", hookSecret, push)...); a.code != http.StatusAccepted || a.body != "Accepted\n" {
				t.Fatalf("%d %s", a.code, a.body)
			}
			if hint := <-hints; hint.GetSource() != "platform" || hint.GetDelivery().GetId() != "id-1" {
				t.Errorf("hint %v", hint)
			}
			await(t, func() bool { return c.last(t, "platform").GetId() == "id-1" })
			if d := c.last(t, "platform"); d.GetResult() != "Accepted" || d.GetEvent() == "" || d.GetTime() == nil {
				t.Errorf("last delivery %v", d)
			}
			if a := c.deliver(t, "platform", push, headers(provider, "id-1", hookSecret, push)...); a.code != http.StatusAccepted || a.body != "Duplicate\n" {
				t.Errorf("the same once more: %d %s", a.code, a.body)
			}
			a := c.deliver(t, "platform", push, headers(provider, "id-2", "another", push)...)
			if a.code != http.StatusUnauthorized || strings.Contains(a.body, hookSecret) {
				t.Errorf("another secret: %d %s", a.code, a.body)
			}
			if last := c.last(t, "platform"); last.GetId() != "id-1" {
				t.Errorf("what a stranger sent is the last delivery: %v", last)
			}
			if c.db.Cache.Revision() != before {
				t.Error("a delivery was written to the store")
			}
			if len(hints) > 0 {
				t.Errorf("hint %v of what was refused or known", <-hints)
			}
			if strings.Contains(c.log.String(), hookSecret) {
				t.Error("the log has the secret")
			}
		})
	}
}

func TestWebhookThatBringsNothing(t *testing.T) {
	c := hooked(t, "GitHub")
	c.hook(t, "deaf", "", "")
	c.hook(t, "bare", "GitHub", "missing")
	c.secret(t, "empty", "", map[string]string{"token": hookSecret})
	c.hook(t, "keyless", "GitHub", "empty")
	c.secret(t, "void", "", map[string]string{"secret": ""})
	c.hook(t, "void", "GitHub", "void")
	const notSigned = "not signed with the secret of a source of this name"
	hints := c.hints(t)
	sources := carav1.NewSourceServiceClient(c.admin(t))
	big := strings.Repeat("x", rest.MaxWebhook+1)
	ping := headers("GitHub", "p", hookSecret, push)
	ping[1] = "ping"
	tests := []struct {
		name, source, body string
		header             []string
		code               int
		says, last         string
	}{
		{"no such source", "nobody", push, headers("GitHub", "1", hookSecret, push), 401, notSigned, ""},
		{"one that takes none", "deaf", push, headers("GitHub", "1", hookSecret, push), 401, notSigned, ""},
		{"its secret is missing", "bare", push, headers("GitHub", "1", hookSecret, push), 401, notSigned, `secret \"missing\" of spec.webhook.secretRef does not exist`},
		{"its secret has no such key", "keyless", push, headers("GitHub", "1", hookSecret, push), 401, notSigned, `has no key \"secret\"`},
		{"its secret is empty", "void", push, headers("GitHub", "1", "", push), 401, notSigned, `has nothing under the key \"secret\"`},
		{"no signature", "platform", push, nil, 401, notSigned, "there is no signature"},
		{"a signature that is none", "platform", push, []string{"X-Hub-Signature-256", "sha256=12"}, 401, notSigned, ""},
		{"larger than 1 MiB", "platform", big, headers("GitHub", "2", hookSecret, big), 413, "1 MiB", ""},
		{"an event that changes nothing", "platform", push, ping, 202, "Ignored", ""},
		{"text from outside is made harmless", "platform", push, []string{"X-GitHub-Event", "\xff\u202e" + strings.Repeat("é", 60), "X-GitHub-Delivery", "\xfe\xff"}, 401, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := c.deliver(t, tt.source, tt.body, tt.header...)
			if a.code != tt.code || !strings.Contains(a.body, tt.says) || strings.Contains(a.body, "missing") || strings.Contains(a.body, hookSecret) {
				t.Errorf("%d %s", a.code, a.body)
			}
			if tt.last != "" {
				eventually(t, "the reason in the log", func() bool { return strings.Contains(c.log.String(), tt.last) })
			}
		})
	}
	t.Run("suspended, and redelivered when it is resumed", func(t *testing.T) {
		if _, err := sources.SuspendSource(t.Context(), &carav1.GetRequest{Name: "platform"}); err != nil {
			t.Fatal(err)
		}
		if a := c.deliver(t, "platform", push, headers("GitHub", "3", hookSecret, push)...); a.code != 202 || a.body != "Ignored: the source is suspended\n" {
			t.Errorf("%d %s", a.code, a.body)
		}
		if len(hints) > 0 {
			t.Errorf("hint %v", <-hints)
		}
		if _, err := sources.ResumeSource(t.Context(), &carav1.GetRequest{Name: "platform"}); err != nil {
			t.Fatal(err)
		}
		if a := c.deliver(t, "platform", push, headers("GitHub", "3", hookSecret, push)...); a.body != "Accepted\n" {
			t.Errorf("%d %s", a.code, a.body)
		}
		<-hints
	})
}

// TestAStormOfDeliveries: 200 concurrent deliveries are accepted and become a limited number of hints.
func TestAStormOfDeliveries(t *testing.T) {
	c := hooked(t, "GitHub")
	hints := c.hints(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if a := c.deliver(t, "platform", push, headers("GitHub", fmt.Sprint(i), hookSecret, push)...); a.code != http.StatusAccepted {
				t.Errorf("%d %s", a.code, a.body)
			}
		})
	}
	wg.Wait()
	<-hints
	if n := len(hints); n >= 200 {
		t.Errorf("%d hints more for 200 deliveries", n)
	}
	// A subscriber that does not read has one hint for all of them.
	sub := c.live.Hints.Subscribe()
	defer c.live.Hints.Unsubscribe(sub)
	for i := range 200 {
		c.deliver(t, "platform", push, headers("GitHub", fmt.Sprint("again-", i), hookSecret, push)...)
	}
	if got := sub.Take(); len(got) != 1 || got["platform"].GetId() != "again-199" {
		t.Errorf("pending %v", got)
	}
}

// TestPollAndDeliveryAreLaidOverTogether: neither hides the other, and both are dropped with the source.
func TestPollAndDeliveryAreLaidOverTogether(t *testing.T) {
	c := hooked(t, "Generic")
	loop, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	c.deliver(t, "platform", push, headers("Generic", "1", hookSecret, push)...)
	src, _ := state.Get[*carav1.Source](c.db.Cache, "platform")
	out, err := carav1.NewSourceServiceClient(loop).UpdateSourceStatus(t.Context(), &carav1.UpdateSourceStatusRequest{
		Name: "platform", Uid: src.GetMetadata().GetUid(), Poll: &carav1.PollStatus{LastTime: timestamppb.Now(), ObservedRevision: "abc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return c.last(t, "platform") != nil })
	list, err := carav1.NewSourceServiceClient(c.admin(t)).ListSources(t.Context(), &carav1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*carav1.Source{out, list.GetItems()[0]} {
		if s.GetStatus().GetPoll().GetObservedRevision() != "abc" {
			t.Errorf("poll %v", s.GetStatus().GetPoll())
		}
	}
	if d := list.GetItems()[0].GetStatus().GetPoll().GetLastDelivery(); d.GetId() != "1" || d.GetResult() != "Accepted" {
		t.Errorf("delivery %v", d)
	}
	c.live.Hints.Forget("platform")
	if c.last(t, "platform") != nil {
		t.Error("it outlives its source")
	}
}

// TestHintsEndWithTheServer: a draining server ends the stream instead of waiting for it.
func TestHintsEndWithTheServer(t *testing.T) {
	c := newCluster(t, nil)
	loop, err := c.Client("sources")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := carav1.NewSourceServiceClient(loop).WatchHints(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	_, err = stream.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
}
