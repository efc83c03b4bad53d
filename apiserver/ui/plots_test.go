package ui_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testaxe"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// meter is the agent's side of a node that serves usage histories, with figures that a test chooses.
type meter struct {
	answers func(project string) []*carav1.AttachRequest
	asked   atomic.Int64
}

// newMeter connects a meter as a node.
func newMeter(t testing.TB, s *site, name string, answers func(project string) []*carav1.AttachRequest) *meter {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(s.dir, identity.JoinTokenFile))
	must(t, err)
	who, err := join.Join(t.Context(), join.Config{Server: s.url, Token: strings.TrimSpace(string(token)), NodeName: name, DataDir: t.TempDir()})
	must(t, err)
	conn, err := who.Dial()
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	nodes := carav1.NewNodeServiceClient(conn)
	stream, err := nodes.Connect(ctx)
	must(t, err, stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{Platform: "linux/amd64"}}, InstanceId: "meter"}))
	m, synced, done := &meter{answers: answers}, make(chan struct{}), make(chan struct{})
	var over error
	go func() {
		defer close(done)
		for {
			in, err := stream.Recv()
			if err != nil {
				over = err
				return
			}
			if in.GetSynced() != nil {
				close(synced)
			}
			if open := in.GetOpenStream(); open != nil {
				m.serve(ctx, nodes, open)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		must(t, conn.Close())
	})
	select {
	case <-synced:
	case <-done:
		t.Fatalf("the connection of the node has ended: %v", over)
	case <-time.After(time.Minute):
		t.Fatal("the server does not talk to the node")
	}
	return m
}

func (m *meter) serve(ctx context.Context, nodes carav1.NodeServiceClient, open *carav1.OpenStream) {
	m.asked.Add(1)
	attach, err := nodes.Attach(ctx)
	if err != nil {
		return
	}
	_ = attach.Send(&carav1.AttachRequest{StreamId: open.GetStreamId()})
	for _, answer := range m.answers(open.GetUsageHistory().GetName()) {
		_ = attach.Send(answer)
	}
	_ = attach.CloseSend()
	_, _ = attach.Recv()
}

// waves are figures of an ordinary hour, with a restart of web in the middle.
func waves(string) []*carav1.AttachRequest {
	history := func(service string, scale float64) *carav1.AttachRequest {
		h := &carav1.ServiceUsageHistory{Service: service, Time: timestamppb.Now(), Interval: durationpb.New(15 * time.Second)}
		for i := range 240 {
			x := scale * (1.2 + math.Sin(float64(i)/17) + 0.2*math.Sin(float64(i*i)))
			gap := service == "web" && i > 120 && i < 128
			for series, size := range map[*[]float32]float64{
				&h.CpuMillis: 180, &h.MemoryBytes: 90 << 20, &h.ReceivedBytesPerSecond: 24 << 10, &h.SentBytesPerSecond: 310 << 10, &h.RequestsPerSecond: 12,
			} {
				switch {
				case gap || service == "app" && series == &h.RequestsPerSecond:
					*series = append(*series, -1)
				default:
					*series = append(*series, float32(max(0, x*size)))
				}
			}
		}
		return &carav1.AttachRequest{UsageHistory: h}
	}
	return []*carav1.AttachRequest{history("web", 1), history("app", 0.4)}
}

// TestPlots: the plots of a project are loaded when somebody opens them, and say in words what they show. No view with them has a
// barrier or is wider than its screen.
func TestPlots(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	objects := example()
	for _, o := range objects {
		if p, ok := o.(*carav1.Project); ok && p.GetMetadata().GetName() == "shop" {
			p.Status.NodeRef = "n3"
		}
	}
	s.put(t, objects...)
	m := newMeter(t, s, "n3", waves)
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Until("document.getElementById('main').dataset.open"))
	if n := m.asked.Load(); n != 0 {
		t.Errorf("the agent was asked %d times before anybody opened the plots", n)
	}
	must(t, tab.Click("#plots > summary"), tab.Until("document.querySelectorAll('#plots svg').length === 9"))
	var label string
	must(t, tab.Eval("document.querySelector('#plots svg').getAttribute('aria-label')", &label))
	if !strings.HasPrefix(label, "CPU of app in the last 60 minutes: now ") || !strings.Contains(label, "on average") {
		t.Errorf("the first plot says %q", label)
	}
	axe := testaxe.Script(t)
	for _, dark := range []bool{false, true} {
		for _, width := range []int64{360, 1280} {
			png, err := tab.Picture(width, 1900, dark)
			must(t, err)
			keep(t, fmt.Sprintf("page-projects-shop-plots-%d-%v.png", width, dark), png)
			var wide float64
			must(t, tab.Eval("document.documentElement.scrollWidth - document.documentElement.clientWidth", &wide))
			if wide > 0 {
				t.Errorf("with plots, the page is %.0f pixels wider than a screen of %d", wide, width)
			}
		}
		found, err := testaxe.Barriers(tab, axe)
		must(t, err)
		for _, barrier := range found {
			t.Errorf("dark %v: %s", dark, barrier)
		}
	}
	again := func() { must(t, tab.Eval("void document.dispatchEvent(new Event('visibilitychange'))", nil)) }
	before := m.asked.Load()
	must(t, tab.Eval("document.getElementById('plots').scrollIntoView()", nil))
	again() // as when the page is shown again
	wait(t, "the open plots are not loaded again", func() bool { return m.asked.Load() > before })
	must(t, tab.Click("#plots > summary"), tab.Until("!document.getElementById('plots').open && !document.getElementById('plots').dataset.loading"))
	before = m.asked.Load()
	again()
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Until("document.getElementById('main').dataset.open"))
	if n := m.asked.Load(); n != before {
		t.Errorf("the agent was asked %d times though the plots were closed", n-before)
	}
	must(t, tab.Eval(`void (window.fetch = async () => new Response("<h1>Too many requests</h1>", {status: 429}))`, nil), tab.Click("#plots > summary"),
		tab.Shows("#plots", "cannot answer now"), tab.Until("!document.querySelector('#plots h1')"))
	for _, problem := range tab.Problems() {
		t.Errorf("the console of the page: %s", problem)
	}
}

// TestPlotsThatThereAreNot: the page says why.
func TestPlotsThatThereAreNot(t *testing.T) {
	s := newSite(t)
	waiting := project("waiting")
	waiting.Status.NodeRef = ""
	s.put(t, node("n2"), project("shop"), project("blog"), away("away", "n2"), waiting)
	newMeter(t, s, "n1", func(project string) []*carav1.AttachRequest {
		if project == "shop" {
			return []*carav1.AttachRequest{{Error: "this agent does not know that kind of stream", Code: int32(codes.Unimplemented)}}
		}
		return nil
	})
	viewer := s.login(t, s.newToken(t, "ada", api.RoleViewer, ""))
	for name, want := range map[string]string{
		"shop": "too old", "blog": "Nothing was measured yet", "away": "node n2 is not connected", "waiting": "on no node", "nosuch": "not found",
	} {
		resp := s.get(t, viewer, "/ui/plots/"+name, nil)
		if body := read(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || strings.Contains(body, "<svg") {
			t.Errorf("%s: %s, want %q\n%s", name, resp.Status, want, body)
		}
	}
	if body := read(t, s.get(t, viewer, "/ui/projects/waiting", nil)); strings.Contains(body, `id="plots"`) {
		t.Error("plots are offered of a project without a node")
	}
	if resp := s.get(t, client(t), "/ui/plots/shop", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("without a login: %s", resp.Status)
	}
}

// away is a project on another node.
func away(name, node string) *carav1.Project {
	p := project(name)
	p.Status.NodeRef = node
	return p
}

func wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	for within := time.After(2 * time.Minute); !so(); {
		select {
		case <-within:
			t.Fatal(what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
