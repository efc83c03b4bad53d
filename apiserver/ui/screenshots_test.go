package ui_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// everyView returns the paths of all views of example.
func everyView() []string {
	return []string{
		"", "projects", "projects/shop", "projects/shop/logs", "projects/blog/shell", "projects/blog", "sources", "sources/platform", "nodes", "nodes/n1", "previews", "volumes",
		"secrets", "tokens", "servers", "sessions", "search?q=shop", "do/override/blog", "do/delete/shop", "do/drain/n1", "nosuch",
	}
}

// TestScreenshots opens every view in both themes, on a wide and on a narrow screen. None is wider than its screen, and on a phone no table is. With
// CARA_SCREENSHOTS=DIR it keeps the pictures; make screenshots does that.
func TestScreenshots(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, example()...)
	tab := s.tab(t, b, s.token)
	for _, path := range everyView() {
		must(t, tab.Go(s.url+"/ui/"+path), tab.Until("document.querySelector('h1') && document.readyState === 'complete'"))
		for _, dark := range []bool{false, true} {
			for _, width := range []int64{1280, 640, 360} { // 640 is a zoom of 200 %
				png, err := tab.Picture(width, 900, dark)
				must(t, err)
				keep(t, fmt.Sprintf("%s-%d-%v.png", strings.NewReplacer("/", "-", "?q=", "-").Replace("page-"+path), width, dark), png)
				var wide float64
				must(t, tab.Eval("document.documentElement.scrollWidth - document.documentElement.clientWidth", &wide))
				if wide > 0 {
					t.Errorf("/ui/%s is %.0f pixels wider than a screen of %d", path, wide, width)
				}
				var cut []string
				must(t, tab.Eval("[...document.querySelectorAll('.wide')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.innerText.slice(0, 40))", &cut))
				if width < 600 && len(cut) > 0 {
					t.Errorf("/ui/%s has tables that are wider than a screen of %d: %q", path, width, cut)
				}
			}
		}
	}
	login, err := b.Tab()
	must(t, err)
	defer login.Close()
	must(t, login.Go(s.url+"/ui/login"))
	png, err := login.Picture(1280, 900, false)
	must(t, err)
	keep(t, "page-login.png", png)
}

func keep(t *testing.T, name string, png []byte) {
	t.Helper()
	if dir := os.Getenv("CARA_SCREENSHOTS"); dir != "" {
		must(t, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), png, 0o644))
	}
}

// example is a small cluster on an ordinary day.
func example() []proto.Message {
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }
	n1, n2 := node("n1"), node("n2")
	n1.Status.Info = &carav1.NodeInfo{
		Platform: "linux/amd64", AgentVersion: "v1.0.0", EngineVersion: "28.5.2", IngressAddress: "10.0.0.11:8081",
		Capacity: &carav1.NodeCapacity{Cpu: "8", Memory: "32Gi", Disk: "500Gi", DiskFree: "190Gi", Subnets: 2048},
	}
	n1.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusTrue, Reason: "Connected", Message: "the agent is connected", LastTransitionTime: ago(50 * time.Hour)}}
	n2.Status = &carav1.NodeStatus{State: api.NodeNotReady, Info: n1.Status.Info, Conditions: []*carav1.Condition{
		{Type: api.CondReady, Status: api.StatusFalse, Reason: "HeartbeatsStopped", Message: "no heartbeat for 20 s: is cara-agent running on n2, and can it reach the server?", LastTransitionTime: ago(3 * time.Minute)},
	}}
	blog := project("blog")
	blog.Metadata.Owner = api.PrefixSource + "platform"
	blog.Metadata.Origin = &carav1.Origin{Source: "platform", File: "apps/blog.yaml", Line: 1, Revision: "4be1c0ffee1234567890", Author: "Ada <ada@example.com>", Subject: "Blog: new theme"}
	blog.Status.Hosts = []string{"blog.example.com"}
	shop := failed("shop", "CrashLoop", "service web exited 5 times within 10 minutes, at last with code 1:\n  panic: dial tcp: lookup db on 127.0.0.11:53: no such host\n  goroutine 1 [running]")
	shop.Metadata.Owner, shop.Metadata.Origin, shop.Metadata.Generation = blog.Metadata.Owner, &carav1.Origin{
		Source: "platform", File: "apps/shop.yaml", Line: 12, Revision: "9a0b1c2d3e4f567890ab", Author: "Linus <linus@example.com>", Subject: "Shop: move the database",
	}, 7
	shop.Status.ObservedGeneration = 7
	shop.Spec.Services = append(shop.Spec.Services, &carav1.Service{Name: "web", Image: "registry.example.com/shop/web:2.4.1", Resources: &carav1.Resources{Requests: &carav1.ResourceList{Cpu: "1500m", Memory: "4Gi"}}})
	shop.Status.Services[0].State = api.ServiceRunning
	shop.Status.Services = append(shop.Status.Services, &carav1.ServiceStatus{Name: "web", State: api.ServiceFailed, Restarts: 5, Message: "exited with code 1"})
	pending := project("search")
	pending.Status = &carav1.ProjectStatus{Phase: api.PhasePending, Conditions: []*carav1.Condition{
		{Type: api.CondScheduled, Status: api.StatusFalse, Reason: "NoNodeFits", Message: "0 of 2 nodes fit: 1 NotReady, 1 insufficient memory", LastTransitionTime: ago(4 * time.Minute)},
	}}
	preview := project("pr-42")
	preview.Status.ExpireAt = timestamppb.New(time.Now().Add(26 * time.Hour))
	preview.Status.Hosts = []string{"pr-42.preview.example.com"}
	volume := &carav1.Volume{
		ApiVersion: api.APIVersion, Kind: api.KindVolume, Metadata: &carav1.ObjectMeta{Name: "shop.db", Uid: "v1", CreationTimestamp: ago(900 * time.Hour)}, Spec: &carav1.VolumeSpec{Project: "shop", Name: "db"},
		Status: &carav1.VolumeStatus{State: api.VolumeInUse, Node: "n1", SizeBytes: proto.Int64(13 << 30), LastBackup: ago(9 * time.Hour)},
	}
	source := &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform", Uid: "s1", Generation: 1, CreationTimestamp: ago(2000 * time.Hour)},
		Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.example.com/platform/deploy.git", Ref: &carav1.GitRef{Branch: "main"}}},
		Status: &carav1.SourceStatus{
			AppliedRevision: "4be1c0ffee1234567890", Projects: 3, Snapshot: &carav1.Snapshot{
				Revision: "9a0b1c2d3e4f567890ab", Subject: "Shop: move the database", Author: "Linus <linus@example.com>", CommitTime: ago(12 * time.Minute), Files: 9, Projects: 3, ErrorCount: 1,
				FileErrors: []*carav1.FileProblem{{File: "apps/mail.yaml", Line: 8, Column: 7, Path: "spec.services[0].imgae", Message: `unknown field "imgae": did you mean "image"?`}},
			},
			Conditions: []*carav1.Condition{{Type: api.CondInvalidManifests, Status: api.StatusTrue, Reason: "InvalidManifests", Message: "apps/mail.yaml:8:7: spec.services[0].imgae: unknown field", LastTransitionTime: ago(12 * time.Minute)}},
			Runs:       []*carav1.Run{{Revision: "9a0b1c2d3e4f567890ab", StartTime: ago(12 * time.Minute), EndTime: ago(12*time.Minute - 800*time.Millisecond), Updated: 1}},
		},
	}
	var out []proto.Message
	for _, c := range []struct {
		name, state, file string
		line              int32
	}{{"blog", api.ClaimApplied, "apps/blog.yaml", 1}, {"shop", api.ClaimApplied, "apps/shop.yaml", 12}} {
		declared := project(c.name)
		hash := api.ClaimHash(declared)
		out = append(out, &carav1.Claim{
			Metadata: &carav1.ObjectMeta{Name: "platform/" + c.name},
			Spec:     &carav1.ClaimSpec{Source: "platform", SourceUid: "s1", Project: declared, Hash: hash, File: c.file, Line: c.line, Revision: "9a0b1c2d3e4f567890ab", Present: true},
			Status:   &carav1.ClaimStatus{State: c.state, AppliedTime: ago(12 * time.Minute), AppliedHash: hash, ProjectUid: declared.GetMetadata().GetUid()},
		})
	}
	crash := event("0004-d", "shop", "CrashLoop", "service web exited with code 1")
	crash.Type, crash.Count, crash.FirstTime, crash.LastTime = string(api.EventWarning), 5, ago(14*time.Minute), ago(3*time.Minute)
	secret := &carav1.Secret{Metadata: &carav1.ObjectMeta{Name: "shop-db", CreationTimestamp: ago(time.Hour)}, Type: "Opaque", Keys: []string{"password", "user"}}
	override := &carav1.Override{
		Metadata: &carav1.ObjectMeta{Name: "shop"}, Scope: api.OverrideSpec, Actor: "user/ada", Reason: "the new database needs a second replica until Monday", Since: ago(time.Hour), Until: timestamppb.New(time.Now().Add(7 * time.Hour)),
	}
	return append(out, override, n1, n2, blog, shop, pending, preview, volume, source, secret, crash,
		event("0001-a", "blog", "Changed", "git changed spec.services[0].image"), event("0002-b", "blog", "Running", "all services are up"),
		event("0003-c", "shop", "Changed", "git changed spec.services[1].image"))
}
