package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// evil contains terminal escape sequences: it renames the window, moves the cursor, sets colours, and changes the text
// direction.
const evil = "a\x1b]0;owned\x07\x1b[2J\u009b31m\u202ezyx\r\x00b\x7f\xff"

func TestNothingThatATerminalObeysComesThrough(t *testing.T) {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: evil, Owner: evil, Labels: map[string]string{evil: evil}},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{{Name: evil, Image: evil}},
			Volumes:  []*carav1.ProjectVolume{{Name: evil, Type: evil}, {Name: evil, Type: "Host", Host: evil}},
		},
		Status: &carav1.ProjectStatus{
			Phase: evil, NodeRef: evil, Hosts: []string{evil},
			Conditions: []*carav1.Condition{{Type: evil, Status: evil, Reason: evil, Message: evil + "\n" + evil}},
			Services:   []*carav1.ServiceStatus{{Name: evil, State: evil, Health: evil, Message: evil}},
		},
	}
	v := &carav1.Volume{
		Metadata: &carav1.ObjectMeta{Name: evil + "." + evil, Uid: evil}, Spec: &carav1.VolumeSpec{Project: evil, Name: evil, Reclaim: evil},
		Status: &carav1.VolumeStatus{State: evil, Node: evil, Owner: evil, Made: true, Message: evil + "\n" + evil},
	}
	backedUp := proto.CloneOf(p)
	backedUp.Spec = &carav1.ProjectSpec{Backup: &carav1.Backup{SecretRef: evil, Schedule: &carav1.BackupSchedule{Cron: evil, TimeZone: evil}}}
	backedUp.Status.Backup = &carav1.BackupStatus{
		State: evil, Reason: evil, Message: evil + "\n" + evil, Snapshots: []*carav1.BackupSnapshot{{Volume: evil, Uid: evil, Id: evil}},
	}
	routed := proto.CloneOf(p)
	routed.Spec = &carav1.ProjectSpec{Ingress: []*carav1.Ingress{{
		Host: evil, Path: evil, Target: &carav1.IngressTarget{Service: evil}, Access: &carav1.IngressAccess{Allow: []string{evil}},
	}}}
	routed.Status.Hosts, routed.Status.NodeRef = []string{api.HostTemplate{}.Host(evil)}, evil
	now := time.Now()
	objects := map[string]proto.Message{
		"projects": p,
		"nodes": &carav1.Node{Metadata: p.Metadata, Status: &carav1.NodeStatus{State: evil, Conditions: p.Status.Conditions, Info: &carav1.NodeInfo{
			Platform: evil, IngressAddress: evil, Capacity: &carav1.NodeCapacity{Cpu: evil, Memory: evil},
		}}},
		"sources": &carav1.Source{Metadata: p.Metadata, Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: evil}}, Status: &carav1.SourceStatus{
			Conditions: []*carav1.Condition{{Type: "FetchFailed", Status: "True", Message: evil}}, AppliedRevision: evil,
			Poll: &carav1.PollStatus{LastDelivery: &carav1.Delivery{Event: evil, Result: evil}},
		}},
		"secrets":    &carav1.Secret{Metadata: p.Metadata, Type: evil, Keys: []string{evil}},
		"events":     &carav1.Event{Metadata: p.Metadata, Type: evil, Reason: evil, Message: evil, Actor: evil, Object: &carav1.ObjectRef{Kind: evil, Name: evil}},
		"overrides":  &carav1.Override{Metadata: p.Metadata, Scope: evil, Actor: evil, Reason: evil},
		"tombstones": &carav1.Tombstone{Metadata: p.Metadata, Reason: evil, Actor: evil, Owner: evil},
		"volumes":    v,
		"backups":    backedUp,
		"routes":     kind.Routes([]*carav1.Project{routed}, "")[0],
		"sessions":   &carav1.Session{Metadata: p.Metadata, Actor: evil, Client: evil, Role: evil, Token: evil, NamePrefixes: []string{evil}},
		"servers":    &kind.ClusterServer{Server: &carav1.Server{Address: evil, Host: evil, Version: evil, Id: evil, Loops: []string{evil}}},
		"tokens":     &carav1.Token{Metadata: p.Metadata, Role: evil, NamePrefix: evil},
	}
	for _, k := range kind.All() {
		var b strings.Builder
		term.NewTable(&b).Print(k.Row(objects[k.Plural], now))
		if strings.Count(b.String(), "\n") != 1 {
			t.Errorf("%s: the row is more than one line: %q", k.Plural, b.String())
		}
		harmless(t, k.Plural, b.String())
	}
	for _, format := range []string{"json", "jsonpath={.metadata.name}", "name", "yaml"} {
		var b strings.Builder
		clean := proto.CloneOf(p)
		for _, s := range []*string{&clean.Metadata.Name, &clean.Metadata.Owner, &clean.Status.Phase} {
			*s = strings.ToValidUTF8(*s, "") // protobuf's JSON takes nothing else
		}
		only := &carav1.Project{
			ApiVersion: "caravanserai/v1", Kind: "Project", Metadata: &carav1.ObjectMeta{Name: clean.Metadata.Name, Owner: clean.Metadata.Owner},
			Status: &carav1.ProjectStatus{Phase: clean.Status.Phase},
		}
		if err := kind.Print(&b, format, false, []proto.Message{only}); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		harmless(t, format, b.String())
	}
	var b strings.Builder
	a := &app{Streams: Streams{Out: &b, Err: &b}, now: time.Now}
	page := kind.Page{Out: &b, Now: now, Conn: volumesOnly{v}}
	if err := kind.Project().Describe(t.Context(), page, p); err != nil {
		t.Error(err)
	}
	if err := kind.Volume().Describe(t.Context(), page, v); err != nil {
		t.Error(err)
	}
	if err := a.confirm(false, volumeText(v, now), "?"); err != nil {
		a.printError(err)
	}
	a.printError(term.Exit{Message: evil})
	a.printResult(&carav1.ApplyResult{Kind: evil, Name: evil, Action: evil, Diff: []*carav1.FieldDiff{{Path: evil, Old: evil, New: evil}}}, false)
	(&diffOptions{app: a}).printDiff(&carav1.ApplyResult{Kind: evil, Name: evil, Action: evil, Diff: []*carav1.FieldDiff{{Path: evil, Old: evil, New: evil}}})
	newLogPrinter(&b, p, &logsOptions{}).print(&carav1.LogLine{Service: evil, Line: evil})
	harmless(t, "text", b.String())
}

// volumesOnly answers lists with one volume.
type volumesOnly struct{ volume *carav1.Volume }

func (s volumesOnly) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	reply.(*carav1.ListVolumesResponse).Items = []*carav1.Volume{s.volume}
	return nil
}

func (volumesOnly) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

func harmless(t *testing.T, what, s string) {
	t.Helper()
	if i := strings.IndexFunc(s, func(r rune) bool {
		return r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e)
	}); i >= 0 {
		t.Errorf("%s: control character at %d of %q", what, i, s)
	}
}

func TestJSONLosesNothing(t *testing.T) {
	name := "a\x1b\u009b\u202e\x7f<&>b"
	var b strings.Builder
	if err := kind.Print(&b, "json", false, []proto.Message{&carav1.Project{Metadata: &carav1.ObjectMeta{Name: name}}}); err != nil {
		t.Fatal(err)
	}
	if want := `"name": "a\u001b\u009b\u202e\u007f<&>b"`; !strings.Contains(b.String(), want) {
		t.Errorf("got %s, want %s in it", b.String(), want)
	}
}

func TestClean(t *testing.T) {
	tests := map[string]string{
		"plain\ttext\n":                          "plain\ttext\n",
		"\x1b[31mred\x1b[0m and \x1b[1;32mgreen": "red and green",
		"\x1b]0;title\x07text":                   "text",
		"\x1b]8;;http://x\x1b\\link":             "\\link",
		"\x1b]0;never ended":                     "]0;never ended",
		"\x1b]0;line\nnext":                      "\nnext",
		"\x1b[31":                                "[31",
		"\x1b[":                                  "[",
		"\x1b":                                   "",
		"\x1bM\x1b7text":                         "M7text",
		"\x1b[3\x1b[31mx":                        "[3x",
		"\u009b31m\u202ex\x00\x7f":               "31mx",
		"a\xffb":                                 "a\ufffdb",
	}
	for give, want := range tests {
		if got := term.Clean(give); got != want {
			t.Errorf("clean(%q) is %q, want %q", give, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add(evil)
	f.Add("\x1b]\x1b[")
	f.Fuzz(func(t *testing.T, s string) { harmless(t, "clean", term.Clean(s)) })
}
