package api

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Defaults that are also needed as values.
const (
	DefaultRescheduleAfter = time.Minute
	DefaultStopGracePeriod = 10 * time.Second
	DefaultCheckInterval   = 30 * time.Second
	DefaultCheckTimeout    = 30 * time.Second
	DefaultCheckRetries    = 3
	DefaultSourceInterval  = 30 * time.Second
	DefaultPruneLimit      = 30
	DefaultMaxProjects     = 10000
	DefaultFileMode        = "0444"
	DefaultHSTSMaxAge      = 365 * 24 * time.Hour
)

// Normalize returns a deep clone with every default set and every value in its canonical spelling: `60s` is `1m0s`, `1000m`
// is `1`, `CAP_CHOWN` is `CHOWN`. Invalid values do not change. Normalize is idempotent. It returns nil for nil.
func Normalize(s *carav1.ProjectSpec) *carav1.ProjectSpec {
	if s == nil {
		return nil
	}
	out := proto.CloneOf(s)
	canonSpec(out)
	eachDefault(out, fill, fill)
	return out
}

// eachDefault visits every field that has a default. Normalize uses it to set defaults, Hash to remove them.
func eachDefault(s *carav1.ProjectSpec, str func(*string, string), num func(*int32, int32)) {
	str(&s.RescheduleAfter, DefaultRescheduleAfter.String())
	for _, v := range s.GetVolumes() {
		str(&v.Type, VolumeEphemeral)
		if v.GetType() == VolumeManaged {
			str(&v.Reclaim, ReclaimRetain)
		}
	}
	backupDefaults(s.GetBackup(), str)
	for _, in := range s.GetIngress() {
		if in.Access == nil {
			in.Access = &carav1.IngressAccess{}
		}
		str(&in.Access.Scope, ScopeInternal)
		tlsDefaults(in, str)
		str(&in.Path, DefaultIngressPath)
		if in.Redirect != nil {
			num(&in.Redirect.Code, DefaultRedirectCode)
		}
	}
	for _, p := range s.GetPorts() {
		str(&p.Protocol, ProtocolTCP)
		str(&p.Scope, ScopeInternal)
	}
	for _, svc := range s.GetServices() {
		eachServiceDefault(svc, str, num)
	}
}

// tlsDefaults visits the defaults of a public host.
func tlsDefaults(in *carav1.Ingress, str func(*string, string)) {
	if in.GetAccess().GetScope() != ScopePublic || PassesTLS(in) {
		return
	}
	if in.Tls == nil {
		in.Tls = &carav1.IngressTLS{}
	}
	if in.GetTls().GetSecretRef() == "" {
		str(&in.Tls.Mode, TLSAuto)
	}
	if in.GetTls().GetHsts() != nil {
		str(&in.Tls.Hsts.MaxAge, DefaultHSTSMaxAge.String())
	}
}

func eachServiceDefault(svc *carav1.Service, str func(*string, string), num func(*int32, int32)) {
	str(&svc.RestartPolicy, RestartAlways)
	str(&svc.PullPolicy, PullIfNotPresent)
	str(&svc.StopGracePeriod, DefaultStopGracePeriod.String())
	order := svc.GetUpdate().GetOrder()
	if str(&order, UpdateStopFirst); order == "" {
		svc.Update = nil // an empty update is the same as none
	} else {
		svc.Update = &carav1.Update{Order: order}
	}
	for _, d := range svc.GetDependsOn() {
		str(&d.Condition, DependsStarted)
	}
	for _, f := range svc.GetFiles() {
		if f.GetFrom() == "" { // otherwise each file has a default
			str(&f.Mode, DefaultFileMode)
		}
	}
	for _, u := range svc.GetUlimits() {
		num(&u.Hard, u.GetSoft())
	}
	if h := svc.GetHealthcheck(); h != nil && !h.GetDisable() {
		str(&h.Interval, DefaultCheckInterval.String())
		str(&h.Timeout, DefaultCheckTimeout.String())
		str(&h.StartPeriod, time.Duration(0).String())
		num(&h.Retries, DefaultCheckRetries)
		if h.GetHttp() != nil {
			str(&h.Http.Path, "/")
		}
	}
}

func fill[T comparable](field *T, def T) { *field = cmp.Or(*field, def) }

func empty[T comparable](field *T, def T) {
	if *field == def {
		*field = *new(T)
	}
}

// canonSpec gives every value its canonical spelling.
func canonSpec(s *carav1.ProjectSpec) {
	canonDuration(&s.RescheduleAfter)
	canonBackup(s)
	if s.GetOnNodeLoss() == NodeLossWait {
		s.OnNodeLoss = "" // the default
	}
	for _, in := range s.GetIngress() {
		in.Host = strings.ToLower(strings.TrimSuffix(in.GetHost(), "."))
		if in.Path != "" {
			in.Path = IngressPath(in.GetPath())
		}
		if h := in.GetTls().GetHsts(); h != nil {
			canonDuration(&h.MaxAge)
		}
	}
	for _, svc := range s.GetServices() {
		canonService(svc)
	}
}

func canonService(svc *carav1.Service) {
	canonDuration(&svc.StopGracePeriod)
	canonQuantity(&svc.ShmSize)
	if svc.StopSignal != "" {
		svc.StopSignal = syntax.CanonSignal(svc.StopSignal)
	}
	svc.CapAdd = canonCaps(svc.CapAdd)
	svc.CapDrop = canonCaps(svc.CapDrop)
	if h := svc.GetHealthcheck(); h != nil {
		canonDuration(&h.Interval)
		canonDuration(&h.Timeout)
		canonDuration(&h.StartPeriod)
	}
	for _, f := range svc.GetFiles() {
		canonMode(&f.Mode)
	}
	if r := svc.GetResources(); proto.Size(r.GetRequests()) == 0 && proto.Size(r.GetLimits()) == 0 {
		svc.Resources = nil
	}
	for _, l := range []*carav1.ResourceList{svc.GetResources().GetRequests(), svc.GetResources().GetLimits()} {
		if l != nil {
			canonQuantity(&l.Cpu)
			canonQuantity(&l.Memory)
		}
	}
}

func canonDuration(field *string) {
	if d, err := syntax.ParseDuration(*field, 0); err == nil && *field != "" {
		*field = d.String()
	}
}

func canonQuantity(field *string) {
	if q, err := syntax.ParseQuantity(*field, ""); err == nil && *field != "" {
		*field = q.String()
	}
}

// canonMode writes an octal mode with four digits: `644` and `0644` are the same mode.
func canonMode(field *string) {
	if !syntax.IsOctal(*field) || len(*field) >= 5 {
		return
	}
	trimmed := strings.TrimLeft(*field, "0")
	*field = strings.Repeat("0", 4-len(trimmed)) + trimmed
}

func canonCaps(caps []string) []string {
	if len(caps) == 0 {
		return nil
	}
	out := make([]string, 0, len(caps))
	for _, c := range caps {
		out = append(out, syntax.CanonCapability(c))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CanonTLS returns a rule's tls with all defaults.
func CanonTLS(in *carav1.Ingress) *carav1.IngressTLS {
	clone := proto.CloneOf(in)
	tlsDefaults(clone, fill)
	if h := clone.GetTls().GetHsts(); h != nil {
		canonDuration(&h.MaxAge)
	}
	return clone.GetTls()
}
