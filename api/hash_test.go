package api_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func fullSpec() *carav1.ProjectSpec {
	return &carav1.ProjectSpec{
		Services: []*carav1.Service{
			{
				Name: "db", Image: "postgres:15", StopGracePeriod: "60s", CapDrop: []string{"CAP_NET_RAW", "chown"},
				Env:          []*carav1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "s", Key: "k"}}}},
				VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}},
				Healthcheck:  &carav1.Healthcheck{Http: &carav1.HTTPCheck{Port: 80}, Interval: "1000ms"},
				Resources:    &carav1.Resources{Requests: &carav1.ResourceList{Cpu: "1000m", Memory: "1024Ki"}},
				Labels:       map[string]string{"a": "1", "b": "2", "c": "3"},
				Files:        []*carav1.File{{Path: "/f", Content: "x", Mode: "644"}},
				Ulimits:      []*carav1.Ulimit{{Name: "nofile", Soft: 5}},
			},
			{Name: "web", Image: "web:1", DependsOn: []*carav1.Dependency{{Service: "db"}}},
		},
		Volumes:      []*carav1.ProjectVolume{{Name: "data"}, {Name: "other"}},
		Ingress:      []*carav1.Ingress{{Name: "web", Host: "Web", Target: &carav1.IngressTarget{Service: "web", Port: 80}}},
		NodeSelector: map[string]string{"disk": "ssd", "zone": "a"},
		ExpireAt:     &timestamppb.Timestamp{Seconds: 1_800_000_000},
	}
}

// TestHashGolden: stores and containers keep these hashes. A change here recreates every container, so it needs a new
// version of the encoding.
func TestHashGolden(t *testing.T) {
	spec := fullSpec()
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "p", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"}},
		Spec:     spec,
	}
	want := map[string]string{
		"empty":   "v1:af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc",
		"spec":    "v1:dd44b4c9d090dfe16533ffb6ea1806be9fdbd5ad544ea512ba0cb6319e188b91",
		"db":      "v1:7e5b7683301b679af279fe3e23ed38dc57c532842831620aaa623adbf26b6d41",
		"web":     "v1:29afc0d8d59f754656571c106651f077523d258f0a08166c2b344eda074a9ab7",
		"missing": "",
		"claim":   "v1:6ea59995baf480bab81677d770884ec0b1763d166a664ba9c26b22363f91d1b5",
	}
	got := map[string]string{
		"empty":   api.Hash(nil),
		"spec":    api.Hash(spec),
		"db":      api.ServiceHash(spec, "db"),
		"web":     api.ServiceHash(spec, "web"),
		"missing": api.ServiceHash(spec, "missing"),
		"claim":   api.ClaimHash(p),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHashIsOfTheMeaning: other spellings, explicit defaults and another order of maps do not change the hash.
func TestHashIsOfTheMeaning(t *testing.T) {
	spec := fullSpec()
	spelled := api.Normalize(spec)
	if proto.Equal(spec, spelled) {
		t.Fatal("nothing to normalise")
	}
	if api.Hash(spec) != api.Hash(spelled) || api.ServiceHash(spec, "db") != api.ServiceHash(spelled, "db") {
		t.Error("the normalised spec has another hash")
	}
	if diff := cmp.Diff(spelled, api.Normalize(spelled), protocmp.Transform()); diff != "" {
		t.Errorf("normalising twice changes more:\n%s", diff)
	}
	if diff := cmp.Diff(fullSpec(), spec, protocmp.Transform()); diff != "" {
		t.Errorf("the argument was changed:\n%s", diff)
	}
	for range 50 {
		if api.Hash(fullSpec()) != api.Hash(spec) {
			t.Fatal("the hash depends on the order of a map")
		}
	}
}

// TestHashSeesEveryField changes each field of the spec, one at a time and at any depth, and expects a different hash.
func TestHashSeesEveryField(t *testing.T) {
	seen := map[string]string{api.Hash(&carav1.ProjectSpec{}): "empty"}
	count := 0
	eachField(&carav1.ProjectSpec{}, "", 0, func(path string, spec *carav1.ProjectSpec) {
		h := api.Hash(spec)
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", path, other)
		}
		seen[h] = path
		count++
	})
	if count < 55 {
		t.Errorf("only %d fields visited", count)
	}
}

// eachField calls visit with a spec that has one field set.
func eachField(root *carav1.ProjectSpec, path string, _ int, visit func(string, *carav1.ProjectSpec)) {
	var walk func(d protoreflect.MessageDescriptor, path string, set func(protoreflect.Message, func(protoreflect.Message)))
	walk = func(d protoreflect.MessageDescriptor, path string, set func(protoreflect.Message, func(protoreflect.Message))) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			at := path + "." + fd.JSONName()
			apply := func(change func(protoreflect.Message)) {
				spec := proto.CloneOf(root)
				set(spec.ProtoReflect(), change)
				visit(at, spec)
			}
			inner := func(m protoreflect.Message, change func(protoreflect.Message)) {
				set(m, func(m protoreflect.Message) {
					if fd.IsList() {
						change(m.Mutable(fd).List().AppendMutable().Message())
					} else {
						change(m.Mutable(fd).Message())
					}
				})
			}
			switch {
			case fd.IsMap():
				apply(func(m protoreflect.Message) {
					m.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
				})
			case fd.Message() != nil:
				walk(fd.Message(), at, inner)
			case fd.IsList():
				apply(func(m protoreflect.Message) { m.Mutable(fd).List().Append(sample(fd)) })
			default:
				apply(func(m protoreflect.Message) { m.Set(fd, sample(fd)) })
			}
		}
	}
	walk(root.ProtoReflect().Descriptor(), path, func(m protoreflect.Message, change func(protoreflect.Message)) { change(m) })
}

func sample(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(7)
	default:
		return protoreflect.ValueOfString("sample")
	}
}

func TestServiceHashKnowsOnlyItsService(t *testing.T) {
	base := fullSpec()
	cases := map[string]struct {
		change func(*carav1.ProjectSpec)
		db     bool
		web    bool
	}{
		"own image":        {func(s *carav1.ProjectSpec) { s.Services[0].Image = "postgres:16" }, true, false},
		"own env":          {func(s *carav1.ProjectSpec) { s.Services[0].Env[0].Value = "2" }, true, false},
		"dependency":       {func(s *carav1.ProjectSpec) { s.Services[1].DependsOn = nil }, false, false},
		"mounted volume":   {func(s *carav1.ProjectSpec) { s.Volumes[0].Type = "Other" }, true, false},
		"unmounted volume": {func(s *carav1.ProjectSpec) { s.Volumes[1].Type = "Other" }, false, false},
		"ingress":          {func(s *carav1.ProjectSpec) { s.Ingress = nil }, false, false},
		"expiry":           {func(s *carav1.ProjectSpec) { s.ExpireAt = nil }, false, false},
		"order":            {func(s *carav1.ProjectSpec) { s.Services[0], s.Services[1] = s.Services[1], s.Services[0] }, false, false},
		"update order":     {func(s *carav1.ProjectSpec) { s.Services[1].Update = &carav1.Update{Order: "start-first"} }, false, false},
		"new service":      {func(s *carav1.ProjectSpec) { s.Services = append(s.Services, &carav1.Service{Name: "x"}) }, false, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := proto.CloneOf(base)
			tc.change(s)
			if got := api.ServiceHash(s, "db") != api.ServiceHash(base, "db"); got != tc.db {
				t.Errorf("db changed: %v, want %v", got, tc.db)
			}
			if got := api.ServiceHash(s, "web") != api.ServiceHash(base, "web"); got != tc.web {
				t.Errorf("web changed: %v, want %v", got, tc.web)
			}
			if api.Hash(s) == api.Hash(base) {
				t.Error("the spec's hash does not see it")
			}
		})
	}
}

func TestClaimHashLeavesProvenanceOut(t *testing.T) {
	p := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: fullSpec()}
	q := proto.CloneOf(p)
	q.Metadata.Origin = &carav1.Origin{Revision: "abc"}
	q.Metadata.Owner, q.Metadata.Uid, q.Metadata.Generation, q.Metadata.ResourceVersion = "source/x", "u", 7, "9"
	q.Status = &carav1.ProjectStatus{Phase: api.PhaseRunning}
	if api.ClaimHash(p) != api.ClaimHash(q) {
		t.Error("provenance changes the hash")
	}
	q.Metadata.Labels["a"] = "c"
	if api.ClaimHash(p) == api.ClaimHash(q) {
		t.Error("labels do not change the hash")
	}
}

// FuzzHash: two random specs have the same hash if and only if their normal forms are equal, and Diff agrees.
func FuzzHash(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed+1)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		x, y := randomSpec(a), randomSpec(b)
		same := proto.Equal(api.Normalize(x), api.Normalize(y))
		if (api.Hash(x) == api.Hash(y)) != same {
			t.Errorf("equal %v, hashes %s and %s", same, api.Hash(x), api.Hash(y))
		}
		diff := api.Diff(&carav1.Project{Spec: x}, &carav1.Project{Spec: y})
		if (len(diff) == 0) != same {
			t.Errorf("equal %v, diff %v", same, diff)
		}
		if api.Hash(x) != api.Hash(api.Normalize(x)) {
			t.Error("the normal form has another hash")
		}
	})
}

// randomSpec draws from few values, so that two seeds often give the same spec.
func randomSpec(seed uint64) *carav1.ProjectSpec {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	s := &carav1.ProjectSpec{RescheduleAfter: pick("", "60s", "1m", "never"), OnNodeLoss: pick("", "Wait", "Restore")}
	for i := range 1 + r.IntN(2) {
		svc := &carav1.Service{
			Name: "s" + strconv.Itoa(i), Image: pick("a", "b"), RestartPolicy: pick("", "Always", "Never"),
			StopSignal: pick("", "TERM", "SIGTERM"), ShmSize: pick("", "1Mi", "1024Ki"),
		}
		if r.IntN(3) == 0 {
			svc.Update = &carav1.Update{Order: pick("", "stop-first", "start-first")}
		}
		if r.IntN(3) == 0 {
			svc.Labels = map[string]string{pick("a", "b"): "1", "c": pick("1", "2")}
		}
		if r.IntN(3) == 0 {
			svc.Files = []*carav1.File{{Path: "/" + pick("a", "b"), Mode: pick("", "444", "0444")}}
		}
		if r.IntN(3) == 0 {
			svc.Resources = &carav1.Resources{}
		}
		s.Services = append(s.Services, svc)
	}
	if r.IntN(2) == 0 {
		s.Volumes = []*carav1.ProjectVolume{{Name: pick("a", "b"), Type: pick("", "Ephemeral")}}
	}
	return s
}

func BenchmarkHash(b *testing.B) {
	spec := fullSpec()
	b.ReportAllocs()
	for b.Loop() {
		api.Hash(spec)
	}
}

// Different spellings of a path and of the defaults are the same project.
func TestIngressSpellings(t *testing.T) {
	spec := func(path string, code int32) *carav1.ProjectSpec {
		s := fullSpec()
		s.Ingress = []*carav1.Ingress{{Name: "a", Host: "a.test", Path: path, Redirect: &carav1.IngressRedirect{To: "/x", Code: code}}}
		return s
	}
	for name, tt := range map[string]struct{ a, b *carav1.ProjectSpec }{
		"all paths":        {spec("", 0), spec("/", 308)},
		"slash at the end": {spec("/a", 308), spec("/a/", 0)},
	} {
		if api.Hash(tt.a) != api.Hash(tt.b) {
			t.Errorf("%s: the hashes differ", name)
		}
		if diff := cmp.Diff(api.Normalize(tt.a), api.Normalize(tt.b), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if a, b := spec("/a", 0), proto.CloneOf(spec("/a", 301)); api.Hash(a) == api.Hash(b) || api.Hash(a) == api.Hash(spec("/b", 0)) {
		t.Error("another code or another path has the same hash")
	}
}
