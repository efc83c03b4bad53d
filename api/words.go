package api

import (
	"cmp"
	"strings"
)

// States of a claim, for the project that a source declares. A claim with a problem also has this word in its source's
// conditions and events.
const (
	ClaimApplied          = "Applied"
	ClaimRefused          = "Refused"
	ClaimNotAllowed       = TitleNotAllowed
	ClaimConflict         = "Conflict"
	ClaimAdoptionRequired = TitleAdoptionRequired
	ClaimExpired          = "Expired"
	ClaimOverridden       = "Overridden"
	ClaimPruneBlocked     = "PruneBlocked"
	ClaimHeld             = "Held"
	ClaimStalled          = "Stalled"
)

// States of a service in a project's status.
const (
	ServiceWaiting    = "Waiting"
	ServicePulling    = "Pulling"
	ServiceCreated    = "Created"
	ServiceRunning    = "Running"
	ServiceRestarting = "Restarting"
	ServiceStopped    = "Stopped"
	ServiceCompleted  = "Completed"
	ServiceFailed     = "Failed"
)

// States of a service's health.
const (
	HealthStarting  = "Starting"
	HealthHealthy   = "Healthy"
	HealthUnhealthy = "Unhealthy"
)

// Scopes of an override: what git no longer decides for a project.
const (
	OverrideSpec     = "Spec"
	OverrideDeletion = "Deletion"
	OverrideExpiry   = "Expiry"
)

// Actions of ScheduleProject.
const (
	ScheduleBind    = "Bind"
	ScheduleMove    = "Move"
	ScheduleExplain = "Explain"
	ScheduleEvict   = "Evict"
	ScheduleAbandon = "Abandon"

	ScheduleAcceptMove = "AcceptMove"
	ScheduleRefuseMove = "RefuseMove"
)

// Steps of a project's move.
const (
	MoveRequested = "Requested"
	MoveCopying   = "Copying"
	MoveSwitching = "Switching"
	MoveRestoring = "Restoring"
)

// States of the restore of one volume, as its node reports them.
const (
	VolumeRestoring     = "Restoring"
	VolumeRestored      = "Restored"
	VolumeRestoreFailed = "Failed"
)

// What happens to a project with Managed volumes when its node is lost.
const (
	NodeLossWait    = "Wait"
	NodeLossRestore = "Restore"
)

// SnapshotLatest is the newest snapshot of each volume, in a request for a restore.
const SnapshotLatest = "latest"

// Results in a report about a move.
const (
	MoveCopied      = "Copied"
	MoveVerified    = "Verified"
	MoveInterrupted = "Interrupted"
	MoveFailed      = "Failed"
)

// Programs on a node's machine that Cara uses for data.
const (
	ToolRsync  = "rsync"
	ToolRestic = "restic"
)

// States of a project's last backup.
const (
	BackupRunning   = "Running"
	BackupSucceeded = "Succeeded"
	BackupFailed    = "Failed"
)

// Actions of an ApplyResult.
const (
	ApplyCreated    = "created"
	ApplyConfigured = "configured"
	ApplyUnchanged  = "unchanged"
	ApplyRefused    = "refused"
)

// EventType is the type of an Event object.
type EventType string

// Types of an Event object.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// Types of watch events.
const (
	WatchAdded    = "Added"
	WatchModified = "Modified"
	WatchDeleted  = "Deleted"
	WatchBookmark = "Bookmark"
)

// Providers of webhooks.
const (
	ProviderGitHub    = "GitHub"
	ProviderGitLab    = "GitLab"
	ProviderGitea     = "Gitea" // also Forgejo, which sends the same headers
	ProviderBitbucket = "Bitbucket"
	ProviderGeneric   = "Generic"
)

// Results of a webhook delivery in its source's status. DeliveryIgnored is followed by the reason.
const (
	DeliveryAccepted  = "Accepted"
	DeliveryDuplicate = "Duplicate"
	DeliveryIgnored   = "Ignored"
)

// Formats of a source: its files are manifests, or Compose files.
const (
	FormatManifests = "Manifests"
	FormatCompose   = "Compose"
)

// Prefixes of the names of actors and owners: `source/platform`, `user/ada`, `node/n1`, `system/gc`. Only sources and users
// own projects.
const (
	PrefixSource = "source/"
	PrefixUser   = "user/"
	PrefixNode   = "node/"
	PrefixSystem = "system/"
)

// SourceOf returns the source in an owner's name. ok is false for every other owner, and for an empty one.
func SourceOf(owner string) (source string, ok bool) {
	if strings.HasPrefix(owner, PrefixSource) {
		return owner[len(PrefixSource):], true
	}
	return "", false
}

// OrNobody returns an owner for messages: "nobody" for a project without an owner.
func OrNobody(owner string) string { return cmp.Or(owner, "nobody") }

// Role determines which methods a caller may call, and which phase moves it may make.
type Role string

// Roles. The first three are for people and pipelines, RoleNode is for agents, and RoleJoin for the tokens with which an
// agent joins. The loops in the server have the others. The phase table also has roles for the server itself and for a
// project's agent.
const (
	RoleNone     = "" // unauthenticated: may only join
	RoleAdmin    = "admin"
	RoleDeployer = "deployer"
	RoleViewer   = "viewer"

	RoleNode = "node"
	RoleJoin = "join"

	RoleScheduler  = "scheduler"
	RoleGC         = "gc"
	RoleReconciler = "reconciler"
	RoleSources    = "sources"
	RoleCerts      = "certs"

	RoleServer = "server"
	RoleAgent  = "agent"
)
