package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestDiff(t *testing.T) {
	base := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "p", Labels: map[string]string{"team": "a"}},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{
				{Name: "web", Image: "web:1", Env: []*carav1.EnvVar{{Name: "A", Value: "<1>"}}, Args: []string{"x"}},
				{Name: "db", Image: "db:1", VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}},
			},
			Volumes: []*carav1.ProjectVolume{{Name: "data"}},
		},
	}
	cases := map[string]struct {
		change func(*carav1.Project)
		want   []string
	}{
		"nothing": {func(*carav1.Project) {}, nil},
		"written-out default": {func(p *carav1.Project) {
			p.Spec.Volumes[0].Type = api.VolumeEphemeral
			p.Spec.RescheduleAfter = "60s"
		}, nil},
		"status and provenance": {func(p *carav1.Project) {
			p.Metadata.Generation, p.Status = 3, &carav1.ProjectStatus{Phase: "Running"}
		}, nil},
		"image": {func(p *carav1.Project) { p.Spec.Services[0].Image = "web:2" }, []string{`spec.services[web].image "web:1" -> "web:2"`}},
		"env":   {func(p *carav1.Project) { p.Spec.Services[0].Env[0].Value = "2" }, []string{`spec.services[web].env[A].value "<1>" -> "2"`}},
		"args":  {func(p *carav1.Project) { p.Spec.Services[0].Args = []string{"x", "y"} }, []string{`spec.services[web].args ["x"] -> ["x","y"]`}},
		"label": {func(p *carav1.Project) { p.Metadata.Labels = map[string]string{"tier": "1"} }, []string{
			`metadata.labels[team] "a" -> `, `metadata.labels[tier]  -> "1"`,
		}},
		"all labels": {func(p *carav1.Project) { p.Metadata.Labels = nil }, []string{`metadata.labels[team] "a" -> `}},
		"order": {func(p *carav1.Project) {
			p.Spec.Services[0], p.Spec.Services[1] = p.Spec.Services[1], p.Spec.Services[0]
		}, []string{`spec.services ["web","db"] -> ["db","web"]`}},
		"volume added": {func(p *carav1.Project) {
			p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: "x"})
		}, []string{`spec.volumes[x]  -> {"name":"x","type":"Ephemeral"}`}},
		"mount moved": {func(p *carav1.Project) { p.Spec.Services[1].VolumeMounts[0].MountPath = "/d" }, []string{
			`spec.services[db].volumeMounts[/data] {"name":"data","mountPath":"/data"} -> `,
			`spec.services[db].volumeMounts[/d]  -> {"name":"data","mountPath":"/d"}`,
		}},
		"expiry": {func(p *carav1.Project) { p.Spec.ExpireAt = &timestamppb.Timestamp{Seconds: 1} }, []string{
			`spec.expireAt  -> "1970-01-01T00:00:01Z"`,
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			next := proto.CloneOf(base)
			tc.change(next)
			if diff := cmp.Diff(tc.want, lines(api.Diff(base, next))); diff != "" {
				t.Error(diff)
			}
			if back := api.Diff(next, base); len(back) != len(tc.want) {
				t.Errorf("back: %v", lines(back))
			}
			if (len(tc.want) == 0) != (api.ClaimHash(base) == api.ClaimHash(next)) {
				t.Error("Diff and ClaimHash disagree")
			}
		})
	}
}

func lines(ds []*carav1.FieldDiff) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.GetPath()+" "+d.GetOld()+" -> "+d.GetNew())
	}
	return out
}

func TestDiffRedactsSecrets(t *testing.T) {
	a := &carav1.Secret{Data: map[string][]byte{"p": []byte("old")}, StringData: map[string]string{"gone": "x"}}
	b := &carav1.Secret{Data: map[string][]byte{"p": []byte("new")}, StringData: map[string]string{"here": "y"}}
	want := []string{
		"stringData[gone] <redacted> -> ", "stringData[here]  -> <redacted>", "data[p] <redacted> -> <redacted>",
	}
	if diff := cmp.Diff(want, lines(api.DiffMessages(a, b))); diff != "" {
		t.Error(diff)
	}
}

func TestDiffOfNothing(t *testing.T) {
	if d := api.Diff(nil, nil); len(d) != 0 {
		t.Errorf("got %v", d)
	}
	p := &carav1.Project{Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web"}}}}
	if d := api.Diff(nil, p); len(d) != 2 || d[0].GetPath() != "spec.services[web]" || d[1].GetPath() != "spec.rescheduleAfter" {
		t.Errorf("got %v", d)
	}
}

// TestNamelessLists: elements without a unique name are addressed by their index.
func TestNamelessLists(t *testing.T) {
	a := &carav1.ProjectStatus{Services: []*carav1.ServiceStatus{{Name: "a", State: "Running"}, {Name: "a"}}}
	b := &carav1.ProjectStatus{Services: []*carav1.ServiceStatus{{Name: "a", State: "Stopped"}}}
	want := []string{`services[0].state "Running" -> "Stopped"`, `services[1] {"name":"a"} -> `}
	if diff := cmp.Diff(want, lines(api.DiffMessages(a, b))); diff != "" {
		t.Error(diff)
	}
}
