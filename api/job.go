package api

import (
	"slices"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// IsJob reports whether a service is one that should end: its restartPolicy says that it may, and nothing says that it
// serves, neither a check nor an ingress.
func IsJob(spec *carav1.ProjectSpec, s *carav1.Service) bool {
	if s.GetRestartPolicy() != RestartNever && s.GetRestartPolicy() != RestartOnFailure {
		return false
	}
	serves := slices.ContainsFunc(spec.GetIngress(), func(in *carav1.Ingress) bool { return in.GetTarget().GetService() == s.GetName() })
	check := s.GetHealthcheck()
	return !serves && (check == nil || check.GetDisable())
}
