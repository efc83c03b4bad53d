package step

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func fromSecret(name, key string) []*carav1.EnvVar {
	return []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: name, Key: key}}}}
}

// TestStepRollsOutSecrets: service a uses db/p by env, b uses db/p as a file, c uses another value, d none.
func TestStepRollsOutSecrets(t *testing.T) {
	spec := func(change ...func(a *carav1.Service)) *carav1.ProjectSpec {
		a := &carav1.Service{Name: "a", Image: "web", Env: fromSecret("db", "p")}
		for _, c := range change {
			c(a)
		}
		return &carav1.ProjectSpec{Services: []*carav1.Service{
			a,
			{Name: "b", Image: "web", Files: []*carav1.File{{Path: "/p", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}},
			{Name: "c", Image: "web", Env: fromSecret("db", "other")},
			{Name: "d", Image: "web"},
		}}
	}
	unlabelled := func(e *world) {
		for i := range e.containers {
			delete(e.containers[i].Labels, labelSecrets)
		}
	}
	for name, c := range map[string]struct {
		spec      *carav1.ProjectSpec
		edit      func(*Want, *world)
		want      string
		condition string // SecretChanged; empty for none
	}{
		"nothing changed": {spec: spec()},
		"a value changed": {
			spec: spec(), edit: func(w *Want, _ *world) { w.SecretVersions["db/p"] = "2" }, want: "DeleteContainer a, Wait b",
		},
		"start-first": {
			spec: spec(func(a *carav1.Service) { a.Update = &carav1.Update{Order: api.UpdateStartFirst} }),
			edit: func(w *Want, _ *world) { w.SecretVersions["db/p"] = "2" }, want: "CreateContainer a, Wait b",
		},
		"manual": {
			spec: spec(), edit: func(w *Want, _ *world) { w.SecretVersions["db/p"], w.ManualSecrets = "2", true },
			condition: "the Secret db changed; services with the old value: a, b. To give them the new one: caractrl restart project/shop",
		},
		"the Secret was deleted": {
			spec: spec(), edit: func(w *Want, _ *world) { delete(w.SecretVersions, "db/p"); delete(w.Secrets, "db/p") },
		},
		"the server is away": {spec: spec(), edit: func(w *Want, _ *world) { w.HaveSecrets, w.Secrets = false, nil }},
		"containers of an older agent": {
			spec: spec(), edit: func(w *Want, e *world) { unlabelled(e); w.SecretVersions["db/p"] = "2" },
		},
		"a value that no process can be given": {
			spec: spec(), edit: func(w *Want, _ *world) { w.SecretVersions["db/p"], w.Secrets["db/p"] = "2", []byte("x\x00y") },
			want: "Wait a, Wait b",
		},
		"a failed project": {
			spec: spec(), edit: func(w *Want, e *world) {
				w.SecretVersions["db/p"], e.memory.Failure = "2", &Failure{Service: "a", Reason: "CrashLoop"}
			},
			want:      "StopContainer d, StopContainer c, StopContainer b, StopContainer a",
			condition: "To try again with the new one: caractrl retry project/shop",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(c.spec), newWorld()
			e.images["web"] = true
			w.Secrets = map[string][]byte{"db/p": []byte("first"), "db/other": []byte("x")}
			w.SecretVersions = map[string]string{"db/p": "1", "db/other": "1"}
			converge(t, e, w)
			if c.edit != nil {
				c.edit(w, e)
			}
			actions := Step(w, e.have(w), e.now)
			if got := kinds(actions); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			got := api.FindCondition(Report(w, e.have(w), actions, e.now).GetConditions(), api.CondSecretChanged).GetMessage()
			if !strings.Contains(got, c.condition) || (got == "") != (c.condition == "") {
				t.Errorf("condition %q, want %q", got, c.condition)
			}
		})
	}
}

func TestRolloutBeginsAnewWithAValue(t *testing.T) {
	a := &carav1.Assignment{Project: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p"}}, SecretVersions: map[string]string{"db/p": "1"}}
	first := NewWant(Node{}, a, true)
	a.SecretVersions = map[string]string{"db/p": "2"}
	if second := NewWant(Node{}, a, true); first.Rollout() == second.Rollout() {
		t.Error("what failed with the old value is not tried with the new one")
	}
}

func TestMissingValue(t *testing.T) {
	long := strings.Repeat("x", validate.MaxWord-len("P="))
	for name, c := range map[string]struct {
		value, want string
	}{
		"fine":        {"fine", ""},
		"as long":     {long, ""},
		"NUL":         {"hunter2\x00hunter2", "the value of key p in Secret db, for the variable P, contains a NUL byte"},
		"not UTF-8":   {"hunter2\xff\xfe", "the value of key p in Secret db, for the variable P, is not UTF-8"},
		"too long":    {long + "x", "the value of key p in Secret db, for the variable P, has 131072 bytes"},
		"two bytes":   {strings.Repeat("ü", 70_000), "has 140002 bytes"},
		"nine of 120": {"", "the environment, command and arguments have"},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &carav1.Service{Name: "a", Env: fromSecret("db", "p")}
			w := &Want{SecretValues: SecretValues{HaveSecrets: true, Secrets: map[string][]byte{"db/p": []byte(c.value)}}}
			if name == "nine of 120" {
				w.Secrets["db/p"] = []byte(strings.Repeat("x", 120_000))
				for range 8 {
					svc.Env = append(svc.Env, fromSecret("db", "p")...)
				}
			}
			got := w.missingValue(svc)
			if !strings.HasPrefix(got, c.want) && !strings.Contains(got, c.want) || (got == "") != (c.want == "") || strings.Contains(got, "hunter2") {
				t.Errorf("got %.200q, want %q", got, c.want)
			}
		})
	}
}

func TestPullSecrets(t *testing.T) {
	w := &Want{
		SecretValues: SecretValues{
			HaveSecrets: true, Auth: map[string]*carav1.RegistryAuth{"docker.io": {Username: "hub"}, "r.example:5000/team": {Username: "team"}},
			PullSecrets: []*carav1.PullSecret{
				{Name: "hub", Registry: "docker.io"},
				{Name: "team", Registry: "r.example:5000/team"},
				{Name: "lost", Missing: true, Problem: "does not exist"},
				{Name: "stray", Registry: "ghcr.io"},
			},
		},
		Spec: &carav1.ProjectSpec{ImagePullSecrets: []string{"hub", "team", "lost", "stray"}, Services: []*carav1.Service{
			{Name: "a", Image: "busybox"}, {Name: "b", Image: "r.example:5000/team/app:1"}, {Name: "c", Image: "r.example:5000/other"},
		}},
	}
	for image, user := range map[string]string{"busybox": "hub", "r.example:5000/team/app:1": "team", "r.example:5000/other": ""} {
		if got := w.AuthFor(image).GetUsername(); got != user {
			t.Errorf("%s is pulled by %q, want %q", image, got, user)
		}
		if got := w.missingPullSecret(image); strings.Contains(got, "Secret lost") != (user == "") {
			t.Errorf("%s waits for %q", image, got)
		}
	}
	if got := w.unusedPullSecrets(); !strings.HasPrefix(got, "the Secret stray of imagePullSecrets is not used: no image comes") || strings.Contains(got, "team") {
		t.Errorf("said %q", got)
	}
}

// TestKnows: a container's output is quoted only if every value that it was created with is known.
func TestKnows(t *testing.T) {
	assignment := func(version, value string) *carav1.Assignment {
		return &carav1.Assignment{
			Project:        &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p", Uid: "u"}},
			SecretVersions: map[string]string{"db/p": version}, Secrets: map[string][]byte{"db/p": []byte(value)},
		}
	}
	svc := &carav1.Service{Name: "a", Env: fromSecret("db", "p")}
	made := func(label string) *engine.Container {
		return &engine.Container{Labels: map[string]string{labelSecrets: label}}
	}
	first := NewWant(Node{}, assignment("1", "hunter2hunter2"), true)
	second := NewWant(Node{}, assignment("2", "secondsecond"), true)
	second.Remember(first)
	if text := second.Values.Text("hunter2hunter2, secondsecond"); text != "<redacted>, <redacted>" {
		t.Errorf("after a change: %s", text)
	}
	restarted := NewWant(Node{}, &carav1.Assignment{Project: assignment("1", "").GetProject(), SecretVersions: map[string]string{"db/p": "1"}}, false)
	for name, c := range map[string]struct {
		want  *Want
		label string
		knows bool
	}{
		"now": {second, "db/p=2", true}, "before": {second, "db/p=1", true}, "long ago": {second, "db/p=0", false},
		"from disk": {restarted, "db/p=1", false}, "from disk, of an older agent": {restarted, "", false}, "of an older agent": {first, "", true},
	} {
		if got := c.want.Knows(svc, made(c.label)); got != c.knows {
			t.Errorf("%s: knows is %t, want %t", name, got, c.knows)
		}
	}
}
