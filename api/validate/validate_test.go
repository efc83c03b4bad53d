package validate_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func validProject() *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: "shop"},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{
				{Name: "db", Image: "postgres:15"},
				{Name: "web", Image: "web:1"},
			},
			Volumes: []*carav1.ProjectVolume{{Name: "data"}},
			Ingress: []*carav1.Ingress{{Name: "web", Host: "shop", Target: &carav1.IngressTarget{Service: "web", Port: 80}}},
		},
	}
}

func validSource() *carav1.Source {
	return &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
		Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.example.com/team/platform.git"}},
	}
}

// check expects the errors `field: part of the message`, in any order, and no others.
func check(t *testing.T, m proto.Message, want ...string) {
	t.Helper()
	var got []string
	for _, e := range validate.Object(m) {
		got = append(got, e.GetField()+": "+e.GetMessage())
	}
	if len(got) != len(want) {
		t.Fatalf("got %d errors, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for _, w := range want {
		field, message, _ := strings.Cut(w, ": ")
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, field+": ") && strings.Contains(g, message)
		}
		if !found {
			t.Errorf("no error %q in:\n%s", w, strings.Join(got, "\n"))
		}
	}
}

func TestValidateService(t *testing.T) {
	cases := map[string]struct {
		change func(*carav1.Service)
		want   []string
	}{
		"as it is":          {func(*carav1.Service) {}, nil},
		"digest":            {func(s *carav1.Service) { s.Image = "r.example.com:5000/a/b@sha256:" + strings.Repeat("a", 64) }, nil},
		"bad image":         {func(s *carav1.Service) { s.Image = "a b" }, []string{"image: is no image reference"}},
		"image id":          {func(s *carav1.Service) { s.Image = strings.Repeat("a", 64) }, []string{"image: is no image reference"}},
		"image id, whole":   {func(s *carav1.Service) { s.Image = "sha256:" + strings.Repeat("a", 64) }, []string{"image: is no image reference"}},
		"name too long":     {func(s *carav1.Service) { s.Name = strings.Repeat("a", 64) }, []string{"name: has 64 characters, at most 63"}},
		"name with dots":    {func(s *carav1.Service) { s.Name = "a.b" }, []string{"name: must be a DNS label"}},
		"env with equals":   {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A=B"}} }, []string{"env[0].name: must not contain ="}},
		"env with NUL":      {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: "a\x00"}} }, []string{"env[0].value: NUL"}},
		"env not UTF-8":     {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: "\xff\xfe"}} }, []string{"env[0].value: the value of A is not UTF-8"}},
		"env at the limit":  {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: strings.Repeat("x", 131_069)}} }, nil},
		"env too long":      {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: strings.Repeat("x", 131_070)}} }, []string{"env[0].value: the value of A has 131072 bytes together with its name"}},
		"env long in bytes": {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: strings.Repeat("ü", 70_000)}} }, []string{"env[0].value: has 140002 bytes"}},
		"env long name":     {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "AB", Value: strings.Repeat("x", 131_069)}} }, []string{"env[0].value: the value of AB has 131072 bytes"}},
		"env in all": {func(s *carav1.Service) {
			for i := range 9 {
				s.Env = append(s.Env, &carav1.EnvVar{Name: "A" + strconv.Itoa(i), Value: strings.Repeat("x", 120_000)})
			}
		}, []string{"env: have 1080036 bytes, at most 1048576"}},
		"long argument":    {func(s *carav1.Service) { s.Args = []string{strings.Repeat("x", 131_072)} }, []string{"args[0]: has 131072 bytes"}},
		"env without name": {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Value: "a"}} }, []string{"env[0].name: is required"}},
		"env both":         {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", Value: "a", ValueFrom: ref("s", "k")}} }, []string{"env[0]: both value and valueFrom"}},
		"env empty source": {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", ValueFrom: &carav1.EnvVarSource{}}} }, []string{"env[0].valueFrom.secretKeyRef: is required"}},
		"env bad key":      {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A", ValueFrom: ref("s", "a/b")}} }, []string{"env[0].valueFrom.secretKeyRef.key: is no key"}},
		"env twice":        {func(s *carav1.Service) { s.Env = []*carav1.EnvVar{{Name: "A"}, {Name: "A"}} }, []string{"env[1].name: appears twice"}},
		"mount undeclared": {func(s *carav1.Service) { s.VolumeMounts = mounts("x", "/a") }, []string{"volumeMounts[0].name: no volume is named \"x\""}},
		"mount relative":   {func(s *carav1.Service) { s.VolumeMounts = mounts("data", "a") }, []string{"volumeMounts[0].mountPath: is not absolute"}},
		"mount root":       {func(s *carav1.Service) { s.VolumeMounts = mounts("data", "//") }, []string{"volumeMounts[0].mountPath: is the root"}},
		"mount up":         {func(s *carav1.Service) { s.VolumeMounts = mounts("data", "/a/../b") }, []string{"volumeMounts[0].mountPath: contains .."}},
		"mount twice":      {func(s *carav1.Service) { s.VolumeMounts = mounts("data", "/a", "data", "/a/") }, []string{"volumeMounts[1].mountPath: is taken by volumeMounts[0]"}},
		"mount and tmpfs":  {func(s *carav1.Service) { s.VolumeMounts = mounts("data", "/a"); s.Tmpfs = []string{"/a:size=1m"} }, []string{"tmpfs[0]: is taken by volumeMounts[0]"}},
		"mount on the kernel's": {
			func(s *carav1.Service) {
				s.VolumeMounts, s.Tmpfs = mounts("data", "/proc", "data", "/sys/fs/cgroup", "data", "//dev/"), []string{"/proc/self:size=1m", "/dev/shm:size=1m"}
				s.Files = []*carav1.File{{Path: "/dev/tty", Content: "x"}, {Path: "/devices", Content: "x"}}
			},
			[]string{
				"volumeMounts[0].mountPath: lies in /proc", "volumeMounts[1].mountPath: lies in /sys", "volumeMounts[2].mountPath: lies in /dev",
				"tmpfs[0]: lies in /proc", "files[0].path: lies in /dev",
			},
		},
		"user":                   {func(s *carav1.Service) { s.User = "www-data:1000" }, nil},
		"user with an escape":    {func(s *carav1.Service) { s.User = "a\x1b[31m" }, []string{"user: contains white space or a control character"}},
		"user with a NUL":        {func(s *carav1.Service) { s.User = "a\x00" }, []string{"user: contains white space or a control character"}},
		"user with a C1 control": {func(s *carav1.Service) { s.User = "a\u009b" }, []string{"user: contains white space or a control character"}},
		"user with a space":      {func(s *carav1.Service) { s.User = "a b" }, []string{"user: contains white space or a control character"}},
		"patient check": {func(s *carav1.Service) {
			s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 1}, Retries: 1000}
		}, nil},
		"too patient check": {func(s *carav1.Service) {
			s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 1}, Retries: 1001}
		}, []string{"healthcheck.retries: is 1001; it must be at least 0 and at most 1000"}},
		"disabled check": {func(s *carav1.Service) { s.Healthcheck = &carav1.Healthcheck{Disable: true} }, nil},
		"disabled check and one": {func(s *carav1.Service) {
			s.Healthcheck = &carav1.Healthcheck{Disable: true, Tcp: &carav1.TCPCheck{Port: 1}}
		}, []string{"healthcheck: has disable and a check"}},
		"two checks": {func(s *carav1.Service) {
			s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 1}, Http: &carav1.HTTPCheck{Port: 1}}
		}, []string{"healthcheck: has http and tcp"}},
		"no check": {func(s *carav1.Service) { s.Healthcheck = &carav1.Healthcheck{} }, []string{"healthcheck: set one of"}},
		"check path": {func(s *carav1.Service) {
			s.Healthcheck = &carav1.Healthcheck{Http: &carav1.HTTPCheck{Path: "a b", Port: 1}}
		}, []string{"healthcheck.http.path: is no path"}},
		"check port":        {func(s *carav1.Service) { s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 65536}} }, []string{"healthcheck.tcp.port: at least 1 and at most 65535"}},
		"bad duration":      {func(s *carav1.Service) { s.StopGracePeriod = "10" }, []string{"stopGracePeriod: is no duration"}},
		"negative duration": {func(s *carav1.Service) { s.StopGracePeriod = "-1s" }, []string{"stopGracePeriod: negative"}},
		"long duration":     {func(s *carav1.Service) { s.StopGracePeriod = "2h" }, []string{"stopGracePeriod: too long"}},
		"quantity":          {func(s *carav1.Service) { s.ShmSize = "64MB" }, []string{"shmSize: is no quantity"}},
		"requests":          {func(s *carav1.Service) { s.Resources = resources("2", "1Gi", "1", "512Mi") }, []string{"resources.requests.cpu: more than the limit", "resources.requests.memory: more than the limit"}},
		"requested pids": {func(s *carav1.Service) {
			s.Resources = &carav1.Resources{Requests: &carav1.ResourceList{Pids: 10}, Limits: &carav1.ResourceList{Pids: 10}}
		}, []string{"resources.requests.pids: set it under limits"}},
		"pids":             {func(s *carav1.Service) { s.Resources = &carav1.Resources{Limits: &carav1.ResourceList{Pids: -1}} }, []string{"resources.limits.pids: at least 0"}},
		"small memory":     {func(s *carav1.Service) { s.Resources = resources("", "", "", "1Mi") }, []string{"resources.limits.memory: less than the engine's minimum"}},
		"self":             {func(s *carav1.Service) { s.DependsOn = deps("db") }, []string{"dependsOn[0].service: is the service itself", "dependsOn: db -> db"}},
		"unknown":          {func(s *carav1.Service) { s.DependsOn = deps("x") }, []string{"dependsOn[0].service: no service is named \"x\"; name one of db or web"}},
		"twice":            {func(s *carav1.Service) { s.DependsOn = deps("web", "web") }, []string{"dependsOn[1].service: appears twice"}},
		"capability":       {func(s *carav1.Service) { s.CapAdd = []string{"cap_chown", "SYS_ADMIN", "NET_FLY"} }, []string{"capAdd[2]: \"NET_FLY\" is no Linux capability"}},
		"all capabilities": {func(s *carav1.Service) { s.CapAdd = []string{"ALL"}; s.CapDrop = []string{"all"} }, []string{"capAdd[0]: policy \"capabilities\""}},
		"signals":          {func(s *carav1.Service) { s.StopSignal = "SIGRTMIN+3" }, nil},
		"signal number":    {func(s *carav1.Service) { s.StopSignal = "65" }, []string{"stopSignal: is no signal"}},
		"label":            {func(s *carav1.Service) { s.Labels = map[string]string{"cara.node": "x"} }, []string{"labels[cara.node]: Cara's own"}},
		"mode":             {func(s *carav1.Service) { s.Files = []*carav1.File{{Path: "/a", Mode: "0888"}} }, []string{"files[0].mode: is no mode"}},
		"file both": {func(s *carav1.Service) {
			s.Files = []*carav1.File{{Path: "/a", Content: "x", SecretKeyRef: ref("s", "k").GetSecretKeyRef()}}
		}, []string{"files[0]: both content and secretKeyRef"}},
		"file of a read-only service": {func(s *carav1.Service) {
			s.ReadOnly, s.Files = true, []*carav1.File{{Path: "/etc/a", Content: "x"}, {Path: "/data/b/c", Content: "x"}, {Path: "/data/ro/d", Content: "x"}}
			s.VolumeMounts = append(mounts("data", "/data/"), &carav1.VolumeMount{Name: "data", MountPath: "/data/ro", ReadOnly: true})
		}, []string{"files[0].path: the service is readOnly", "files[2].path: the service is readOnly"}},
		"many files": {func(s *carav1.Service) {
			s.Ulimits = []*carav1.Ulimit{{Name: "nofile", Soft: 1 << 20}, {Name: "memlock", Soft: -1}}
		}, nil},
		"too many files": {
			func(s *carav1.Service) { s.Ulimits = []*carav1.Ulimit{{Name: "nofile", Soft: 1024, Hard: 1<<20 + 1}} },
			[]string{"ulimits[0].hard: policy \"bounds\" allows at most 1048576 open files"},
		},
		"no limit of files": {func(s *carav1.Service) { s.Ulimits = []*carav1.Ulimit{{Name: "nofile", Soft: -1}} }, []string{"ulimits[0].soft: policy \"bounds\""}},
		"shm":               {func(s *carav1.Service) { s.ShmSize = "64Gi" }, nil},
		"too much shm":      {func(s *carav1.Service) { s.ShmSize = "65Gi" }, []string{"shmSize: policy \"bounds\" allows at most 64Gi"}},
		"tmpfs": {func(s *carav1.Service) {
			s.Tmpfs = []string{"/a", "/b:size=64m,mode=1777,noexec", "/c:size=50%", "/d:size=1048576,uid=0,rw"}
		}, nil},
		"tmpfs options": {func(s *carav1.Service) {
			s.Tmpfs = []string{"/a:bind", "/b:size=65g", "/c:size=", "/d:size=101%", "/e:mode", "/f:ro=1", "/g:size=1x"}
		}, []string{
			"tmpfs[0]: is no option of a tmpfs", "tmpfs[1]: size: policy \"bounds\"", "tmpfs[2]: is no size", "tmpfs[3]: allows at most 64g, or 100%",
			"tmpfs[4]: is not how the option is written", "tmpfs[5]: is not how the option is written", "tmpfs[6]: is no size",
		}},
		"ulimit": {func(s *carav1.Service) {
			s.Ulimits = []*carav1.Ulimit{{Name: "nofile", Soft: -2}, {Name: "nofile", Soft: -1, Hard: 1}}
		}, []string{"ulimits[0].soft: no limit", "ulimits[1].name: appears twice", "ulimits[1].soft: more than the hard limit"}},
		"restart policy":   {func(s *carav1.Service) { s.RestartPolicy = "always" }, []string{`restartPolicy: must be Always, OnFailure or Never; did you mean "Always"?`}},
		"update order":     {func(s *carav1.Service) { s.Update = &carav1.Update{Order: "startfirst"} }, []string{"update.order: must be stop-first or start-first"}},
		"relative workdir": {func(s *carav1.Service) { s.WorkingDir = "a" }, []string{"workingDir: is not absolute"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := validProject()
			if name == "name too long" || name == "name with dots" {
				p.Spec.Ingress = nil
			}
			tc.change(p.Spec.Services[0])
			var want []string
			for _, w := range tc.want {
				want = append(want, "spec.services[0]."+w)
			}
			check(t, p, want...)
		})
	}
}

func ref(name, key string) *carav1.EnvVarSource {
	return &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: name, Key: key}}
}

func mounts(namesAndPaths ...string) []*carav1.VolumeMount {
	var out []*carav1.VolumeMount
	for i := 0; i < len(namesAndPaths); i += 2 {
		out = append(out, &carav1.VolumeMount{Name: namesAndPaths[i], MountPath: namesAndPaths[i+1]})
	}
	return out
}

func deps(names ...string) []*carav1.Dependency {
	var out []*carav1.Dependency
	for _, n := range names {
		out = append(out, &carav1.Dependency{Service: n})
	}
	return out
}

func resources(cpu, memory, maxCPU, maxMemory string) *carav1.Resources {
	return &carav1.Resources{
		Requests: &carav1.ResourceList{Cpu: cpu, Memory: memory}, Limits: &carav1.ResourceList{Cpu: maxCPU, Memory: maxMemory},
	}
}

func TestValidateProject(t *testing.T) {
	cases := map[string]struct {
		change func(*carav1.Project)
		want   []string
	}{
		"as it is":      {func(*carav1.Project) {}, nil},
		"reserved name": {func(p *carav1.Project) { p.Metadata.Name = "watch" }, []string{"metadata.name: keeps for itself"}},
		"no name":       {func(p *carav1.Project) { p.Metadata.Name = "" }, []string{"metadata.name: is required"}},
		"bad label":     {func(p *carav1.Project) { p.Metadata.Labels = map[string]string{"a": "b c"} }, []string{"metadata.labels[a]: is no label value"}},
		"no spec":       {func(p *carav1.Project) { p.Spec = nil }, []string{"spec: is required"}},
		"no services":   {func(p *carav1.Project) { p.Spec = &carav1.ProjectSpec{} }, []string{"spec.services: has no entry"}},
		"service twice": {func(p *carav1.Project) {
			p.Spec.Services = append(p.Spec.Services, &carav1.Service{Name: "db", Image: "x"})
		}, []string{`spec.services[2].name: service name "db" appears twice: services[0] and services[2]`}},
		"circle": {func(p *carav1.Project) {
			p.Spec.Services[0].DependsOn, p.Spec.Services[1].DependsOn = deps("web"), deps("db")
		}, []string{"spec.services[0].dependsOn: db -> web -> db"}},
		"localhost": {func(p *carav1.Project) {
			p.Spec.Services[0].Name = "localhost"
		}, []string{"spec.services[0].name: every container resolves to itself"}},
		"completed, of one that never ends": {func(p *carav1.Project) {
			p.Spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db", Condition: api.DependsCompleted}}
		}, []string{"spec.services[1].dependsOn[0].condition: service db never completes: its restartPolicy is Always; set restartPolicy: OnFailure"}},
		"completed, of one that is told never to end": {func(p *carav1.Project) {
			p.Spec.Services[0].RestartPolicy = api.RestartAlways
			p.Spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db", Condition: api.DependsCompleted}}
		}, []string{"spec.services[1].dependsOn[0].condition: never completes"}},
		"completed": {func(p *carav1.Project) {
			p.Spec.Services[0].RestartPolicy = api.RestartNever
			p.Spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db", Condition: api.DependsCompleted}}
		}, nil},
		"healthy, of one without a check in the manifest": {func(p *carav1.Project) { // its image may have one
			p.Spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db", Condition: api.DependsHealthy}}
		}, nil},
		"healthy, of one whose check is disabled": {func(p *carav1.Project) {
			p.Spec.Services[0].Healthcheck = &carav1.Healthcheck{Disable: true}
			p.Spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db", Condition: api.DependsHealthy}}
		}, []string{"spec.services[1].dependsOn[0].condition: service db is never healthy"}},
		"target":                  {func(p *carav1.Project) { p.Spec.Ingress[0].Target.Service = "x" }, []string{`spec.ingress[0].target.service: no service is named "x"`}},
		"no target":               {func(p *carav1.Project) { p.Spec.Ingress[0].Target = nil }, []string{"spec.ingress[0].target: is required"}},
		"wildcard":                {func(p *carav1.Project) { p.Spec.Ingress[0].Host = "*.a" }, []string{"spec.ingress[0].host: wildcards"}},
		"address":                 {func(p *carav1.Project) { p.Spec.Ingress[0].Host = "10.0.0.1" }, []string{"spec.ingress[0].host: is the address"}},
		"long label":              {func(p *carav1.Project) { p.Spec.Ingress[0].Host = strings.Repeat("a", 64) + ".b" }, []string{"spec.ingress[0].host: a label of 64 characters"}},
		"expire at":               {func(p *carav1.Project) { p.Spec.ExpireAt = &timestamppb.Timestamp{Seconds: 1 << 60} }, []string{"spec.expireAt: out of range"}},
		"node selector":           {func(p *carav1.Project) { p.Spec.NodeSelector = map[string]string{"a b": "c"} }, []string{"spec.nodeSelector[a b]: is no label key"}},
		"never":                   {func(p *carav1.Project) { p.Spec.RescheduleAfter = "never" }, nil},
		"Never":                   {func(p *carav1.Project) { p.Spec.RescheduleAfter = "Never" }, []string{"spec.rescheduleAfter: is no duration"}},
		"node loss":               {func(p *carav1.Project) { p.Spec.OnNodeLoss = "Wait" }, nil},
		"restore without backups": {func(p *carav1.Project) { p.Spec.OnNodeLoss = "Restore" }, []string{"spec.onNodeLoss: is Restore, which needs backups"}},
		"restore of backups": {func(p *carav1.Project) {
			p.Spec.OnNodeLoss, p.Spec.Backup, p.Spec.Volumes[0].Type = "Restore", &carav1.Backup{SecretRef: "b"}, api.VolumeManaged
		}, nil},
		"unknown node loss": {func(p *carav1.Project) { p.Spec.OnNodeLoss = "Hope" }, []string{"spec.onNodeLoss: "}},
		"pull secrets":      {func(p *carav1.Project) { p.Spec.ImagePullSecrets = []string{"", "a", "a", "B"} }, []string{"spec.imagePullSecrets[0]: is empty", "spec.imagePullSecrets[2]: appears twice", "spec.imagePullSecrets[3]: DNS label"}},
		"status ignored":    {func(p *carav1.Project) { p.Status = &carav1.ProjectStatus{Phase: strings.Repeat("x", 9999)} }, nil},
		"wrong kind":        {func(p *carav1.Project) { p.Kind, p.ApiVersion = "Node", "v1" }, []string{`kind: must be "Project"`, `apiVersion: must be "caravanserai/v1"`}},
		"managed volume": {func(p *carav1.Project) {
			p.Spec.Volumes[0].Type, p.Spec.Volumes[0].Reclaim = api.VolumeManaged, api.ReclaimDelete
		}, nil},
		"host volume":   {func(p *carav1.Project) { p.Spec.Volumes[0].Type, p.Spec.Volumes[0].Host = api.VolumeHost, "media" }, nil},
		"no host":       {func(p *carav1.Project) { p.Spec.Volumes[0].Type = api.VolumeHost }, []string{"spec.volumes[0].host: is missing; name a host volume"}},
		"host path":     {func(p *carav1.Project) { p.Spec.Volumes[0].Type, p.Spec.Volumes[0].Host = api.VolumeHost, "/srv" }, []string{"spec.volumes[0].host: DNS label"}},
		"host unwanted": {func(p *carav1.Project) { p.Spec.Volumes[0].Host = "media" }, []string{"spec.volumes[0].host: is only for volumes of type Host"}},
		"reclaim":       {func(p *carav1.Project) { p.Spec.Volumes[0].Reclaim = api.ReclaimDelete }, []string{"spec.volumes[0].reclaim: is only for volumes of type Managed"}},
		"17 managed": {func(p *carav1.Project) {
			for i := range 17 {
				p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: fmt.Sprintf("v%d", i), Type: api.VolumeManaged})
			}
		}, []string{"spec.volumes: has 17 volumes of type Managed, at most 16"}},
		"101 services": {func(p *carav1.Project) { p.Spec.Services = make([]*carav1.Service, 101) }, []string{"spec.services: has 101 entries, at most 100"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := validProject()
			tc.change(p)
			before := proto.CloneOf(p)
			check(t, p, tc.want...)
			if !proto.Equal(before, p) {
				t.Error("the argument was changed")
			}
		})
	}
}

func TestValidateSource(t *testing.T) {
	good := []string{
		"https://git.example.com/a.git", "http://localhost:3000/a", "ssh://git@git.example.com:22/a.git", "git@github.com:a/b.git",
		"file:///srv/repo.git", "/srv/repo.git", "ssh://[::1]/a",
	}
	for _, u := range good {
		s := validSource()
		s.Spec.Git.Url = u
		t.Run(u, func(t *testing.T) { check(t, s) })
	}
	bad := map[string]string{
		"https://u:p@h/a": "holds credentials", "https://token@h/a": "holds credentials", "ssh://git:p@h/a": "holds credentials",
		"ftp://h/a": "has the scheme", "https:///a": "names no host", "https://h": "names no repository", "https://h/a?b=c": "has a query",
		"file://host/a": "is no local path", "relative/path": "is no repository URL", "-upload-pack=x": "begins with -", "/a/../b": "contains ..",
		"https://h/a b": "white space", "ext::sh -c": "white space", "https://%zz/": "is no URL",
	}
	for u, want := range bad {
		s := validSource()
		s.Spec.Git.Url = u
		t.Run(u, func(t *testing.T) {
			check(t, s, "spec.git.url: "+want)
			for _, e := range validate.Object(s) {
				if strings.Contains(e.GetMessage(), "token") || strings.Contains(e.GetMessage(), ":p@") {
					t.Errorf("repeats a credential: %s", e.GetMessage())
				}
			}
		})
	}
	cases := map[string]struct {
		change func(*carav1.SourceSpec)
		want   []string
	}{
		"neither":    {func(s *carav1.SourceSpec) { s.Git = nil }, []string{"spec: set git or dir"}},
		"both":       {func(s *carav1.SourceSpec) { s.Dir = &carav1.DirSource{Path: "/a"} }, []string{"spec: has both git and dir"}},
		"relative":   {func(s *carav1.SourceSpec) { s.Git, s.Dir = nil, &carav1.DirSource{Path: "a"} }, []string{"spec.dir.path: is not absolute"}},
		"refs":       {func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Branch: "a", Tag: "b"} }, []string{"spec.git.ref: has branch and tag"}},
		"full ref":   {func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Branch: "refs/heads/a"} }, []string{"spec.git.ref.branch: full ref name"}},
		"bad ref":    {func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Tag: "a.lock"} }, []string{"spec.git.ref.tag: no name that git allows"}},
		"semver":     {func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Semver: ">=1.2 <2"} }, nil},
		"commit":     {func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Commit: "abcdef"} }, []string{"spec.git.ref.commit: no full commit hash"}},
		"path":       {func(s *carav1.SourceSpec) { s.Path = "/a" }, []string{"spec.path: is absolute"}},
		"path up":    {func(s *carav1.SourceSpec) { s.Path = "a/../.." }, []string{"spec.path: leaves the source"}},
		"path dot":   {func(s *carav1.SourceSpec) { s.Path = "./a/" }, nil},
		"globs":      {func(s *carav1.SourceSpec) { s.Include, s.Exclude = []string{"**/*.y{a,}ml"}, []string{"[", ""} }, []string{"spec.exclude[0]: is no glob", "spec.exclude[1]: is empty"}},
		"interval":   {func(s *carav1.SourceSpec) { s.Interval = "25h" }, []string{"spec.interval: too long"}},
		"webhook":    {func(s *carav1.SourceSpec) { s.Webhook = &carav1.Webhook{Provider: "SVN"} }, []string{"spec.webhook.provider: must be GitHub", "spec.webhook.secretRef: is required"}},
		"limits":     {func(s *carav1.SourceSpec) { s.PruneLimit, s.MaxProjects = proto.Int32(-1), 10001 }, []string{"spec.pruneLimit: is -1", "spec.maxProjects: is 10001"}},
		"bad words":  {func(s *carav1.SourceSpec) { s.Adopt, s.OnDelete = "x", "y" }, []string{"spec.adopt: must be Never", "spec.onDelete: must be Orphan or Delete"}},
		"secret ref": {func(s *carav1.SourceSpec) { s.Git.SecretRef = "A_B" }, []string{"spec.git.secretRef: DNS label"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := validSource()
			tc.change(s.Spec)
			check(t, s, tc.want...)
		})
	}
}

func TestValidateSecretAndNode(t *testing.T) {
	secret := func(change func(*carav1.Secret)) *carav1.Secret {
		s := &carav1.Secret{ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "s"}}
		change(s)
		return s
	}
	check(t, secret(func(s *carav1.Secret) { s.StringData = map[string]string{"a.b-c_d": "x"} }))
	check(t, secret(func(s *carav1.Secret) { s.StringData = map[string]string{"a/b": "x"} }), "stringData: is no key")
	check(t, secret(func(s *carav1.Secret) {
		s.StringData, s.Data = map[string]string{"a": "x"}, map[string][]byte{"a": []byte("y")}
	}), "data[a]: is in stringData too")
	check(t, secret(func(s *carav1.Secret) { s.Data = map[string][]byte{"a": make([]byte, 1<<20)} }), "data: hold 1048577 bytes")
	check(t, secret(func(s *carav1.Secret) { s.Type = "registry"; s.Data = map[string][]byte{"server": []byte("x")} }),
		"stringData[username]: is required", "stringData[password]: is required")
	check(t, secret(func(s *carav1.Secret) { s.Type = "ssh" }), "type: must be Opaque, registry, backup, tls or basicAuth")
	check(t, &carav1.Node{ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: "n1", Labels: map[string]string{"a": strings.Repeat("b", 64)}}},
		"metadata.labels[a]: is no label value")
}

// TestValidateSize: a project can be too large even if each of its parts is within its limit.
func TestValidateSize(t *testing.T) {
	for args, want := range map[int][]string{2: nil, 3: {"spec: has 293 KiB, at most 256 KiB"}} {
		p := validProject()
		for range args {
			p.Spec.Services[0].Args = append(p.Spec.Services[0].Args, strings.Repeat("x", 100_000))
		}
		check(t, p, want...)
	}
}

// TestValidateIsBounded: an object with a hundred thousand errors returns few errors, quickly.
func TestValidateIsBounded(t *testing.T) {
	p := validProject()
	p.Spec.Services = nil
	for i := range 100 {
		svc := &carav1.Service{Name: fmt.Sprintf("s%d", i)}
		for range 1000 {
			svc.Env = append(svc.Env, &carav1.EnvVar{})
		}
		p.Spec.Services = append(p.Spec.Services, svc)
	}
	start := time.Now()
	bad := validate.Object(p)
	t.Logf("%d errors in %v", len(bad), time.Since(start))
	if len(bad) == 0 || len(bad) > 100 {
		t.Errorf("%d errors", len(bad))
	}
}

func BenchmarkValidate(b *testing.B) {
	p := validProject()
	b.ReportAllocs()
	for b.Loop() {
		if bad := validate.Object(p); len(bad) > 0 {
			b.Fatal(bad)
		}
	}
}

func TestValidateFilters(t *testing.T) {
	check(t, &carav1.ListVolumesRequest{})
	check(t, &carav1.ListVolumesRequest{State: api.VolumeLost})
	check(t, &carav1.ListVolumesRequest{State: "inuse"}, `state: is "inuse"; it must be`)
	check(t, &carav1.ListProjectsRequest{Phase: []string{string(api.PhaseRunning)}})
	check(t, &carav1.ListProjectsRequest{Phase: []string{"Up"}}, `phase[0]: is "Up"; it must be`)
	check(t, &carav1.WatchProjectsRequest{Phase: []string{"Up"}}, `phase[0]: is "Up"; it must be`)
}

func TestValidateBackupSecret(t *testing.T) {
	secret := func(data map[string]string) *carav1.Secret {
		return &carav1.Secret{ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "s"}, Type: api.SecretBackup, StringData: data}
	}
	check(t, secret(map[string]string{"repository": "/srv/b", "password": "p"}))
	check(t, secret(map[string]string{"password": "p"}), "stringData[repository]: is required")
	check(t, secret(map[string]string{"repository": "/srv/b", "password": "p", "LD_PRELOAD": "/tmp/x.so"}), "data: has a key that a Secret of type backup cannot have")
	check(t, secret(map[string]string{"repository": "/srv/b", "password": "p", "PATH": "/tmp"}), "data: has a key that a Secret of type backup cannot have")
	check(t, secret(map[string]string{"repository": "s3:x/y", "password": "p"}), "stringData: cannot be used for backups: the key AWS_ACCESS_KEY_ID is missing")
}
