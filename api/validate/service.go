package validate

import (
	"errors"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/distribution/reference"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

func (e serviceErrors) service(at string, s *carav1.Service, x specIndex) {
	e.image(at+".image", s.GetImage())
	e.env(at+".env", s.GetEnv())
	e.mounts(at, s, x)
	e.from(at, s)
	e.absolute(at+".workingDir", s.GetWorkingDir())
	e.user(at+".user", s.GetUser())
	e.words(at, s)
	e.healthcheck(at+".healthcheck", s.GetHealthcheck())
	e.dependsOn(at+".dependsOn", s, x)
	e.resources(at+".resources", s.GetResources())
	e.duration(at+".stopGracePeriod", s.GetStopGracePeriod(), 0, time.Hour)
	if sig := s.GetStopSignal(); sig != "" && !syntax.IsSignal(sig) {
		e.add(at+".stopSignal", "%q is no signal; write one such as SIGTERM, SIGINT or SIGQUIT", text.Short(sig))
	}
	e.ulimits(at+".ulimits", s.GetUlimits())
	e.policy(at, s)
	e.added(at+".capAdd", s.GetCapAdd())
	e.dropped(at+".capDrop", s.GetCapDrop())
	for _, k := range sortedKeys(s.GetLabels()) {
		field := at + ".labels[" + k + "]"
		switch {
		case k == "":
			e.add(field, "the key is empty; name the label")
		case strings.HasPrefix(k, api.LabelPrefix):
			e.add(field, "labels that begin with %s are Cara's own; choose another prefix", api.LabelPrefix)
		case len(k) > 256 || len(s.GetLabels()[k]) > 4096:
			e.add(field, "is too long: a key may have 256 bytes, a value 4096")
		}
	}
}

func (e serviceErrors) image(field, image string) {
	if image == "" {
		return
	}
	_, err := reference.ParseNormalizedNamed(image)
	if strings.HasPrefix(image, "sha256:") {
		err = errors.New("it is the id of an image on one node")
	}
	if err != nil {
		e.add(field, "%q is no image reference: %v; write one such as postgres:15 or registry.example.com/team/app:1.2", text.Short(image), err)
	}
}

func (e serviceErrors) env(at string, vars []*carav1.EnvVar) {
	seen := map[string]int{}
	for i, v := range vars {
		field := api.Element(at, i)
		if bad := envName(v.GetName()); bad != "" {
			e.add(field+".name", "%q is no variable name: %s", text.Short(v.GetName()), bad)
		}
		e.unique(seen, v.GetName(), "variable", at, i, ".name")
		if bad := EnvProblem(v.GetName(), []byte(v.GetValue())); bad != "" {
			e.add(field+".value", "the value of %s %s", text.Short(v.GetName()), bad)
		}
		if v.GetValue() != "" && v.GetValueFrom() != nil {
			e.add(field, "has both value and valueFrom; keep one of them")
		}
		e.secretVars(field+".secretVars", field+".value", v.GetValue(), v.GetSecretVars())
		if v.GetValueFrom() != nil {
			e.secretKey(field+".valueFrom.secretKeyRef", v.GetValueFrom().GetSecretKeyRef())
		}
	}
}

func envName(name string) string {
	for _, c := range []byte(name) {
		switch {
		case c == '=':
			return "it must not contain ="
		case c <= ' ' || c == 0x7f:
			return "it must not contain white space or control characters"
		}
	}
	return ""
}

func (e serviceErrors) secretKey(at string, r *carav1.SecretKeyRef) {
	if r == nil {
		return
	}
	e.dnsLabel(at+".name", r.GetName())
	e.secretKeyName(at+".key", r.GetKey())
}

// mounts validates everything that uses a path in the container: the paths must be different.
func (e serviceErrors) mounts(at string, s *carav1.Service, x specIndex) {
	taken := map[string]string{}
	take := func(field, p string) {
		if !e.absolute(field, p) || p == "" {
			return
		}
		p = path.Clean(p)
		if p == "/" {
			e.add(field, "is the root of the container; choose a path below it")
		} else if fs := kernelPath(p); fs != "" && !belowDevShm(p) {
			e.add(field, "%s lies in %s, which the engine and the kernel provide; choose another path", text.Short(p), fs)
		} else if other, ok := taken[p]; ok {
			e.add(field, "%s is taken by %s already; choose another path", text.Short(p), other)
		}
		taken[p] = strings.TrimPrefix(field, at+".")
	}
	for i, m := range s.GetVolumeMounts() {
		field := api.Element(at+".volumeMounts", i)
		if _, ok := x.volumes[m.GetName()]; !ok && m.GetName() != "" {
			e.add(field+".name", "no volume is named %q; declare it under spec.volumes", text.Short(m.GetName()))
		}
		take(field+".mountPath", m.GetMountPath())
		if strings.Contains(m.GetMountPath(), ":") {
			e.add(field+".mountPath", "must not contain a colon")
		}
	}
	for i, t := range s.GetTmpfs() {
		p, _, _ := strings.Cut(t, ":")
		field := api.Element(at+".tmpfs", i)
		if p == "" {
			e.add(field, "names no path; write one such as /run or /run:size=64m")
		}
		take(field, p)
	}
	for i, f := range s.GetFiles() {
		field := api.Element(at+".files", i)
		for _, target := range targets(f) {
			take(field+".path", target)
		}
		sources := given([]string{"content", "secretKeyRef", "from"}, f.GetContent() != "", f.GetSecretKeyRef() != nil, f.GetFrom() != "")
		if len(sources) > 1 {
			e.add(field, "has both %s; keep one of them", strings.Join(sources, " and "))
		}
		e.secretKey(field+".secretKeyRef", f.GetSecretKeyRef())
		e.secretVars(field+".secretVars", field+".content", f.GetContent(), f.GetSecretVars())
		if s.GetReadOnly() && !writable(s.GetVolumeMounts(), f.GetPath()) {
			e.add(field+".path", "%s cannot be written: the service is readOnly; put the file below the mountPath of a volume, or take readOnly away", text.Short(f.GetPath()))
		}
		if m := f.GetMode(); m != "" && (!syntax.IsOctal(m) || len(m) < 3 || len(m) > 4) {
			e.add(field+".mode", "%q is no mode; write three or four octal digits in quotes, such as \"0444\"", m)
		}
	}
}

// given returns the names of the fields that are set.
func given(names []string, set ...bool) (out []string) {
	for i, name := range names {
		if set[i] {
			out = append(out, name)
		}
	}
	return out
}

// kernelPath returns the directory /proc, /sys or /dev that contains a path, or "". A mount there would hide or change the
// kernel's files and the devices in the container.
func kernelPath(p string) string {
	for _, fs := range []string{"/proc", "/sys", "/dev"} {
		if p == fs || strings.HasPrefix(p, fs+"/") {
			return fs
		}
	}
	return ""
}

// belowDevShm reports whether a path is in the container's shared memory, which is a normal tmpfs.
func belowDevShm(p string) bool { return p == "/dev/shm" || strings.HasPrefix(p, "/dev/shm/") }

// writable reports whether a file is in a volume that is not mounted read-only.
func writable(mounts []*carav1.VolumeMount, file string) bool {
	m := api.MountOf(mounts, file)
	return m != nil && !m.GetReadOnly()
}

// absolute reports whether p is a clean absolute path. Another rule handles an empty path.
func (e *fieldErrors) absolute(field, p string) bool {
	switch {
	case p == "":
		return true
	case !path.IsAbs(p):
		e.add(field, "%q is not absolute; begin it with /", text.Short(p))
	case slices.Contains(strings.Split(p, "/"), ".."):
		e.add(field, "%q contains ..; write where it leads", text.Short(p))
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		e.add(field, "%q contains a control character", text.Short(p))
	default:
		return true
	}
	return false
}

// user validates `user[:group]`, which the engine looks up in the image's /etc/passwd.
func (e serviceErrors) user(field, user string) {
	if strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' || r == 0x7f || unicode.IsControl(r) || unicode.IsSpace(r) }) {
		e.add(field, "%q contains white space or a control character; write a name or a number, such as 1000:1000", text.Short(user))
	}
}

func (e serviceErrors) noNUL(field, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		e.add(field, "contains a NUL byte, which no process can be given; take it out")
	}
}

func (e serviceErrors) healthcheck(at string, h *carav1.Healthcheck) {
	if h == nil {
		return
	}
	have := given([]string{"exec", "http", "tcp"}, h.GetExec() != nil, h.GetHttp() != nil, h.GetTcp() != nil)
	if h.GetDisable() && len(have) > 0 {
		e.add(at, "has disable and a check; keep one of them")
	}
	if h.GetDisable() {
		return
	}
	switch len(have) {
	case 0:
		e.add(at, "says nothing to check; set one of http, tcp or exec, or disable to turn off the check of the image")
	case 1:
	default:
		e.add(at, "has %s; keep one of them", strings.Join(have, " and "))
	}
	if p := h.GetHttp().GetPath(); p != "" && (!strings.HasPrefix(p, "/") || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f })) {
		e.add(at+".http.path", "%q is no path; begin it with / and escape white space", text.Short(p))
	}
	e.duration(at+".interval", h.GetInterval(), 100*time.Millisecond, time.Hour)
	e.duration(at+".timeout", h.GetTimeout(), 100*time.Millisecond, time.Hour)
	e.duration(at+".startPeriod", h.GetStartPeriod(), 0, 24*time.Hour)
}

func (e serviceErrors) dependsOn(at string, s *carav1.Service, x specIndex) {
	seen := map[string]int{}
	for i, d := range s.GetDependsOn() {
		field := api.Element(at, i) + ".service"
		if d.GetService() == "" {
			continue
		}
		if d.GetService() == s.GetName() {
			e.add(field, "is the service itself; take it away")
		} else if _, ok := x.services[d.GetService()]; !ok {
			e.add(field, "no service is named %q; name one of %s", text.Short(d.GetService()), known(x.services))
		} else {
			e.condition(api.Element(at, i)+".condition", d, x.specs[d.GetService()])
		}
		e.unique(seen, d.GetService(), "service", at, i, ".service")
	}
}

// condition rejects a dependency that can never be fulfilled.
func (e serviceErrors) condition(field string, d *carav1.Dependency, on *carav1.Service) {
	switch {
	case d.GetCondition() == api.DependsCompleted && (on.GetRestartPolicy() == "" || on.GetRestartPolicy() == api.RestartAlways):
		e.add(field, "service %s never completes: its restartPolicy is Always; set restartPolicy: OnFailure or Never on it, or wait for Started or Healthy", on.GetName())
	case d.GetCondition() == api.DependsHealthy && on.GetHealthcheck().GetDisable():
		e.add(field, "service %s is never healthy: its healthcheck is disabled; give it one of http, tcp or exec, or wait for Started", on.GetName())
	}
}

func (e serviceErrors) resources(at string, r *carav1.Resources) {
	e.quantity(at+".requests.cpu", r.GetRequests().GetCpu(), syntax.MilliCPU)
	e.quantity(at+".requests.memory", r.GetRequests().GetMemory(), syntax.Bytes)
	e.quantity(at+".limits.cpu", r.GetLimits().GetCpu(), syntax.MilliCPU)
	e.quantity(at+".limits.memory", r.GetLimits().GetMemory(), syntax.Bytes)
	e.within(at+".requests.cpu", r.GetRequests().GetCpu(), r.GetLimits().GetCpu(), syntax.MilliCPU)
	e.within(at+".requests.memory", r.GetRequests().GetMemory(), r.GetLimits().GetMemory(), syntax.Bytes)
	if r.GetRequests().GetPids() != 0 {
		e.add(at+".requests.pids", "processes are not counted against a node; set it under limits")
	}
	if n, err := syntax.Bytes(r.GetLimits().GetMemory()); err == nil && n > 0 && n < minMemory {
		e.add(at+".limits.memory", "%q is less than the engine's minimum of 6Mi; a plain number counts bytes", r.GetLimits().GetMemory())
	}
}

// minMemory is the smallest memory limit that Docker accepts.
const minMemory = 6 << 20

func (e serviceErrors) within(field, request, limit string, read func(string) (int64, error)) {
	r, rErr := read(request)
	l, lErr := read(limit)
	if rErr == nil && lErr == nil && limit != "" && r > l {
		e.add(field, "%s is more than the limit %s; lower the request or raise the limit", request, limit)
	}
}

func (e serviceErrors) quantity(field, q string, read func(string) (int64, error)) {
	if _, err := read(q); err != nil {
		e.add(field, "%v", err)
	}
}

func (e *fieldErrors) duration(field, s string, least, most time.Duration) {
	if s == "" {
		return
	}
	d, err := syntax.ParseDuration(s, 0)
	switch {
	case err != nil:
		e.add(field, "%v", err)
	case d < least:
		e.add(field, "%s is too short; write at least %s", s, least)
	case d > most:
		e.add(field, "%s is too long; write at most %s", s, most)
	}
}

func (e serviceErrors) ulimits(at string, all []*carav1.Ulimit) {
	seen := map[string]int{}
	for i, u := range all {
		field := api.Element(at, i)
		if u.GetName() != "" && !slices.Contains(syntax.Ulimits(), u.GetName()) {
			e.add(field+".name", "%q is no limit; use one of %s", text.Short(u.GetName()), oneOf(syntax.Ulimits()))
		}
		e.unique(seen, u.GetName(), "limit", at, i, ".name")
		soft, hard := u.GetSoft(), u.GetHard()
		switch {
		case soft < -1:
			e.add(field+".soft", "is %d; write 0 or more, or -1 for no limit", soft)
		case hard < -1:
			e.add(field+".hard", "is %d; write 0 or more, or -1 for no limit", hard)
		case hard > 0 && (soft > hard || soft == -1):
			e.add(field+".soft", "%d is more than the hard limit %d; lower it or raise the hard limit", soft, hard)
		}
	}
}

func (e serviceErrors) dropped(at string, caps []string) {
	for i, c := range caps {
		if !slices.Contains(syntax.Capabilities(), syntax.CanonCapability(c)) {
			e.add(api.Element(at, i), "%q is no Linux capability; write one such as NET_RAW, or ALL", text.Short(c))
		}
	}
}

// known joins existing names for a message.
func known(names map[string]int) string {
	all := sortedKeys(names)
	if len(all) > 10 {
		all = append(all[:10], "...")
	}
	return oneOf(all)
}
