package api

import (
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Restarts returns, by service, the token of the last request to restart it. Services without a request are not included. A
// status from an older server has only the last request.
func Restarts(p *carav1.Project) map[string]string {
	st := p.GetStatus()
	if len(st.GetRestarts()) > 0 || st.GetRestartToken() == "" {
		return st.GetRestarts()
	}
	return named(p, st.GetRestartServices(), st.GetRestartToken())
}

// AddRestart returns Restarts with a new request: services (all if empty) get its token, the other services keep theirs.
// Services that are no longer in the manifest are dropped.
func AddRestart(p *carav1.Project, services []string, token string) map[string]string {
	out := map[string]string{}
	before := Restarts(p)
	for _, s := range p.GetSpec().GetServices() {
		if t := before[s.GetName()]; t != "" {
			out[s.GetName()] = t
		}
	}
	maps.Copy(out, named(p, services, token))
	return out
}

func named(p *carav1.Project, services []string, token string) map[string]string {
	out := map[string]string{}
	for _, name := range services {
		out[name] = token
	}
	if len(services) == 0 {
		for _, s := range p.GetSpec().GetServices() {
			out[s.GetName()] = token
		}
	}
	return out
}

// IsJob reports whether a service is expected to end: its restartPolicy allows it, and it has neither a health check, an
// ingress nor a port.
func IsJob(spec *carav1.ProjectSpec, s *carav1.Service) bool {
	if s.GetRestartPolicy() != RestartNever && s.GetRestartPolicy() != RestartOnFailure {
		return false
	}
	serves := slices.ContainsFunc(spec.GetIngress(), func(in *carav1.Ingress) bool { return in.GetTarget().GetService() == s.GetName() })
	serves = serves || slices.ContainsFunc(spec.GetPorts(), func(p *carav1.ProjectPort) bool { return p.GetTarget().GetService() == s.GetName() })
	check := s.GetHealthcheck()
	return !serves && (check == nil || check.GetDisable())
}

// RescheduleAfter parses spec.rescheduleAfter: how long to wait for a lost node (DefaultRescheduleAfter if empty), or never.
func RescheduleAfter(s string) (wait time.Duration, never bool, err error) {
	if s == Never {
		return 0, true, nil
	}
	wait, err = syntax.ParseDuration(s, DefaultRescheduleAfter)
	return wait, false, err
}
