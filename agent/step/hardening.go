package step

import (
	"cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Hardening is what the operator of a node sets for every container that runs there, and what he lets them ask for.
type Hardening struct {
	// PIDsLimit is how many processes and threads a container may have where its manifest gives no limit: 4,096 where 0,
	// no limit where negative. Without one, a container that forks without end takes the whole machine's.
	PIDsLimit int32
	// NoNewPrivileges sets noNewPrivileges for every container, whatever its manifest says.
	NoNewPrivileges bool
	// AllowCaps are the capabilities that manifests may add on this node, beside those that they may add on every node.
	AllowCaps []string
}

// WithDefaults fills in what the operator left out.
func (h Hardening) WithDefaults() Hardening {
	h.PIDsLimit = cmp.Or(h.PIDsLimit, 4096)
	return h
}

// harden fills in what the manifest leaves to the node. It changes w's own copy of the spec after the hashes were taken,
// so that a change of the agent's flags makes no container anew: a limit is changed in place, and the rest holds for
// containers that are made from then on.
func (w *Want) harden(h Hardening) {
	for _, s := range w.Spec.GetServices() {
		s.NoNewPrivileges = s.GetNoNewPrivileges() || h.NoNewPrivileges
		if s.GetResources().GetLimits().GetPids() != 0 || h.PIDsLimit <= 0 {
			continue
		}
		if s.Resources == nil {
			s.Resources = &carav1.Resources{}
		}
		if s.Resources.Limits == nil {
			s.Resources.Limits = &carav1.ResourceList{}
		}
		s.Resources.Limits.Pids = h.PIDsLimit
	}
}
