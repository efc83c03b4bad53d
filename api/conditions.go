package api

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Values of a condition's status.
const (
	StatusTrue    = "True"
	StatusFalse   = "False"
	StatusUnknown = "Unknown"
)

// Condition types of a project. CondReady is also a source's and a node's.
const (
	CondScheduled   = "Scheduled"
	CondImagesReady = "ImagesReady"
	CondReady       = "Ready"
	CondPhase       = "Phase"
	CondOverridden  = "Overridden"
	CondExpiring    = "Expiring"
	// CondSecretChanged says that containers still have an old value of a Secret.
	CondSecretChanged = "SecretChanged"
	// CondUnmountedVolume says that an image declares a volume that the manifest mounts nothing at, so its data is lost
	// with each container.
	CondUnmountedVolume = "UnmountedVolume"
)

// Condition types of a source.
const (
	CondFetchFailed      = "FetchFailed"
	CondInvalidManifests = "InvalidManifests"
	CondConflict         = "Conflict"
	CondPruneBlocked     = "PruneBlocked"
	CondSuspended        = "Suspended"
	CondWatchDegraded    = "WatchDegraded"
	CondStalled          = "Stalled"
)

// Condition types of a node.
const (
	CondEngineReady    = "EngineReady"
	CondDiskPressure   = "DiskPressure"
	CondMemoryPressure = "MemoryPressure"
	CondDrained        = "Drained"
	// CondIngressReachable is False where the server refuses the ingress address that the node reports.
	CondIngressReachable = "IngressReachable"
)

// UpdateFailed reports whether the previous version of an assigned project serves because its update came to nothing.
func UpdateFailed(p *carav1.Project) bool {
	phase := p.GetStatus().GetPhase()
	ready := FindCondition(p.GetStatus().GetConditions(), CondReady)
	return (phase == PhaseScheduled || phase == PhaseRunning) && ready.GetStatus() == StatusFalse && ready.GetReason() == ReasonUpdateFailed
}

// NewCondition returns a condition that SetCondition has not dated yet.
func NewCondition(typ, status string, reason Reason, message string) *carav1.Condition {
	return &carav1.Condition{Type: typ, Status: status, Reason: string(reason), Message: message}
}

// FindCondition returns the condition of a type as it stands in cs; nil if there is none.
func FindCondition(cs []*carav1.Condition, typ string) *carav1.Condition {
	for _, c := range cs {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

// IsTrue reports whether cs has the condition of a type with status True.
func IsTrue(cs []*carav1.Condition, typ string) bool {
	return FindCondition(cs, typ).GetStatus() == StatusTrue
}

// SetCondition returns cs with c in the place of the condition of its type, or behind the last one, and whether that
// says anything new. lastTransitionTime becomes now where the status changed and stays where it did not; the one in c
// is ignored. cs and c are left as they are, and where nothing is new, cs itself comes back.
func SetCondition(cs []*carav1.Condition, c *carav1.Condition, now time.Time) ([]*carav1.Condition, bool) {
	next := proto.CloneOf(c)
	i := slices.IndexFunc(cs, func(have *carav1.Condition) bool { return have.GetType() == c.GetType() })
	if i < 0 {
		next.LastTransitionTime = timestamppb.New(now)
		return append(slices.Clone(cs), next), true
	}
	next.LastTransitionTime = cs[i].GetLastTransitionTime()
	if cs[i].GetStatus() != c.GetStatus() || next.LastTransitionTime == nil {
		next.LastTransitionTime = timestamppb.New(now)
	}
	if proto.Equal(cs[i], next) {
		return cs, false
	}
	out := slices.Clone(cs)
	out[i] = next
	return out, true
}

// RemoveCondition returns cs without the condition of a type, and whether there was one. cs is left as it is.
func RemoveCondition(cs []*carav1.Condition, typ string) ([]*carav1.Condition, bool) {
	i := slices.IndexFunc(cs, func(have *carav1.Condition) bool { return have.GetType() == typ })
	if i < 0 {
		return cs, false
	}
	return slices.Delete(slices.Clone(cs), i, i+1), true
}
