package api

// States of a claim: what became of the project that a source declares. A claim in trouble has the word of the trouble in its source's
// conditions and events too.
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

// Scopes of an override: what git no longer decides about a project.
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

// Types of what a watch sends.
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
	ProviderGitea     = "Gitea" // and Forgejo, which sends the same headers
	ProviderBitbucket = "Bitbucket"
	ProviderGeneric   = "Generic"
)

// Results of a webhook's delivery, as its source's status has them. DeliveryIgnored and DeliveryRefused begin a result that says why.
const (
	DeliveryAccepted  = "Accepted"
	DeliveryDuplicate = "Duplicate"
	DeliveryIgnored   = "Ignored"
	DeliveryRefused   = "Refused"
)
