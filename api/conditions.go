package api

import (
	"fmt"
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

// Condition types of a project. Sources and nodes have CondReady too.
const (
	CondScheduled   = "Scheduled"
	CondMoving      = "Moving"
	CondRestoring   = "Restoring"
	CondImagesReady = "ImagesReady"
	CondReady       = "Ready"
	CondPhase       = "Phase"
	CondOverridden  = "Overridden"
	CondExpiring    = "Expiring"
	// CondSecretChanged means that containers still have an old value of a Secret.
	CondSecretChanged = "SecretChanged"
	// CondUnmountedVolume means that an image declares a volume where the manifest mounts nothing, so its data is lost with
	// each container.
	CondUnmountedVolume = "UnmountedVolume"
	// CondBackupStale means that no backup has succeeded for two intervals of the schedule.
	CondBackupStale = "BackupStale"
	// CondBackupBlocked means that the next backup will fail, because its node lacks a program.
	CondBackupBlocked = "BackupBlocked"
	// CondCertificateReady means that each public host of a project that needs a certificate has one.
	CondCertificateReady = "CertificateReady"
	// CondPortsReady is True if nodes have opened all ports of the project. A node has it, False, if it cannot open a port.
	CondPortsReady = "PortsReady"
	// CondIngressReady is False if clients cannot use an ingress rule of a project: no agent serves public hosts, or the Secret of
	// basicAuth cannot be used. Other projects do not have it.
	CondIngressReady = "IngressReady"
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
	// CondIngressReachable is False if the server rejects the ingress address that the node reports.
	CondIngressReachable = "IngressReachable"
)

// UpdateFailed reports whether an update of an assigned project failed and the previous version still runs.
func UpdateFailed(p *carav1.Project) bool {
	phase := p.GetStatus().GetPhase()
	ready := FindCondition(p.GetStatus().GetConditions(), CondReady)
	return (phase == PhaseScheduled || phase == PhaseRunning) && ready.GetStatus() == StatusFalse && ready.GetReason() == ReasonUpdateFailed
}

// NewCondition returns a condition without a transition time, which SetCondition adds.
func NewCondition(typ, status string, reason Reason, message string) *carav1.Condition {
	return &carav1.Condition{Type: typ, Status: status, Reason: string(reason), Message: message}
}

// FindCondition returns the condition of a type in cs, not a copy, or nil.
func FindCondition(cs []*carav1.Condition, typ string) *carav1.Condition {
	for _, c := range cs {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

// IsTrue reports whether the condition of a type in cs has status True.
func IsTrue(cs []*carav1.Condition, typ string) bool {
	return FindCondition(cs, typ).GetStatus() == StatusTrue
}

// SetCondition returns cs with c replacing the condition of its type, or appended, and whether anything changed.
// lastTransitionTime becomes now if the status changed, and otherwise stays; the one in c is ignored. cs and c are not
// modified. If nothing changed, SetCondition returns cs itself.
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

// RemoveCondition returns cs without the condition of a type, and whether there was one. cs is not modified.
func RemoveCondition(cs []*carav1.Condition, typ string) ([]*carav1.Condition, bool) {
	i := slices.IndexFunc(cs, func(have *carav1.Condition) bool { return have.GetType() == typ })
	if i < 0 {
		return cs, false
	}
	return slices.Delete(slices.Clone(cs), i, i+1), true
}

// NodeSilence returns the message for a node whose heartbeats stopped. last is nil if none has come since the server's start.
func NodeSilence(name string, last *timestamppb.Timestamp, timeout time.Duration) string {
	if last == nil {
		return fmt.Sprintf("node %s was not heard of since the server's start: is cara-agent running there, and can it reach the server?", name)
	}
	return fmt.Sprintf("node %s was last heard of at %s, more than %s ago: is cara-agent running there, and can it reach the server?",
		name, last.AsTime().UTC().Format(time.RFC3339), timeout)
}
