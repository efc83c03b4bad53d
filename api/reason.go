package api

// Reason is one word that says why: of a condition, an event, a phase move, a deletion, or a step of a plan. People and scripts match it, so a
// word never changes its meaning. The constants are untyped, because the generated fields that hold them are strings; a function that takes a
// Reason accepts them and refuses a message in their place.
type Reason string

// Not returns the reason of a condition that does not hold: `NoConflict` for Conflict.
func Not(condition string) string { return "No" + condition }

// Reasons of a project's phase moves, conditions and events.
const (
	ReasonAbandoned      = "Abandoned"
	ReasonAdopted        = "Adopted"
	ReasonChanged        = "Changed"
	ReasonCreated        = "Created"
	ReasonDriftCorrected = "DriftCorrected"
	ReasonEvicted        = "Evicted"
	ReasonExec           = "Exec"
	ReasonExpiring       = "Expiring"
	ReasonExtended       = "Extended"
	ReasonForced         = "Forced"
	ReasonMoving         = "Moving"
	ReasonNoLongerFits   = "NoLongerFits"
	ReasonNodeDraining   = "NodeDraining"
	ReasonNodeGone       = "NodeGone"
	ReasonNodeLost       = "NodeLost"
	ReasonOrphaned       = "Orphaned"
	ReasonOverridden     = "Overridden"
	ReasonOverrideEnded  = "OverrideEnded"
	ReasonOverrideUndone = "OverrideUndone"
	ReasonReleased       = "Released"
	ReasonRemoved        = "Removed"
	ReasonRestart        = "Restart"
	ReasonRetry          = "Retry"
	ReasonScheduled      = "Scheduled"
	ReasonSecretChanged  = "SecretChanged"
	ReasonSoon           = "Soon"
	ReasonSpecChanged    = "SpecChanged"
	ReasonTerminated     = "Terminated"
	ReasonTerminating    = "Terminating"
	ReasonUnschedulable  = "Unschedulable"
	// ReasonWaiting is the scheduler's, before it has looked at a project.
	ReasonWaiting = "Waiting"
)

// Reasons of a deletion: people's, git's, the clock's.
const (
	ReasonDeleted       = "Deleted"
	ReasonPruned        = "Pruned"
	ReasonExpired       = "Expired"
	ReasonSourceDeleted = "SourceDeleted"
)

// Reasons that an agent gives for the state of a project.
const (
	ReasonCrashLoop         = "CrashLoop"
	ReasonCreateFailed      = "CreateFailed"
	ReasonDigestGone        = "DigestGone"
	ReasonExited            = "Exited"
	ReasonFailed            = "Failed"
	ReasonHealthCheckFailed = "HealthCheckFailed"
	ReasonImageDigestGone   = "ImageDigestGone"
	ReasonImageNotFound     = "ImageNotFound"
	ReasonImageVolume       = "ImageVolume"
	ReasonImagePullFailed   = "ImagePullFailed"
	ReasonNameTaken         = "NameTaken"
	ReasonNetworkFailed     = "NetworkFailed"
	ReasonNetworkTooSmall   = "NetworkTooSmall"
	ReasonNoHealthcheck     = "NoHealthcheck"
	ReasonPresent           = "Present"
	ReasonPullBackoff       = "PullBackoff"
	ReasonPullSecretMissing = "PullSecretMissing"
	ReasonPullSecretUnused  = "PullSecretUnused"
	ReasonPulling           = "Pulling"
	ReasonServiceDown       = "ServiceDown"
	ReasonServicesUp        = "ServicesUp"
	ReasonStartFailed       = "StartFailed"
	ReasonStarting          = "Starting"
	ReasonUpdating          = "Updating"
	// ReasonUpdateFailed is the reason of a project's CondReady where a service's new version will not take over and the previous one keeps
	// serving: the end of an update, for whoever waits for one.
	ReasonUpdateFailed = "UpdateFailed"
	ReasonVolumeFailed = "VolumeFailed"
)

// Reasons of a node's conditions and events.
const (
	ReasonAboveLimit        = "AboveLimit"
	ReasonAnswers           = "Answers"
	ReasonBelowLimit        = "BelowLimit"
	ReasonDrained           = "Drained"
	ReasonDraining          = "Draining"
	ReasonEpochWentBack     = "EpochWentBack"
	ReasonHeartbeat         = "Heartbeat"
	ReasonHeartbeatsStopped = "HeartbeatsStopped"
	ReasonImagesCollected   = "ImagesCollected"
	ReasonJoined            = "Joined"
	ReasonNeverConnected    = "NeverConnected"
	ReasonNoAnswer          = "NoAnswer"
	ReasonNodeNotReady      = "NodeNotReady"
	ReasonNodeReady         = "NodeReady"
	ReasonNotKept           = "NotKept"
	ReasonNotSeen           = "NotSeen"
	ReasonOrphansSwept      = "OrphansSwept"
	ReasonRejoined          = "Rejoined"
)

// Reasons of a source's conditions and events, save those of FetchFailed.
const (
	ReasonApplied            = "Applied"
	ReasonBlocked            = "Blocked"
	ReasonDeleting           = "Deleting"
	ReasonFetchRecovered     = "FetchRecovered"
	ReasonFight              = "Fight"
	ReasonInvalidFiles       = "InvalidFiles"
	ReasonManifestsRecovered = "ManifestsRecovered"
	ReasonNotRead            = "NotRead"
	ReasonPolling            = "Polling"
	ReasonPruneConfirmed     = "PruneConfirmed"
	ReasonPruneOff           = "PruneOff"
	ReasonResumed            = "Resumed"
	ReasonSuspended          = "Suspended"
)

// Reasons of a source's CondFetchFailed: why it could not be read.
const (
	ReasonAddressRefused       = "AddressRefused"
	ReasonAuthFailed           = "AuthFailed"
	ReasonDirectoryUnavailable = "DirectoryUnavailable"
	ReasonEmptyRepository      = "EmptyRepository"
	ReasonHostKeyRefused       = "HostKeyRefused"
	ReasonInsecureTransport    = "InsecureTransport"
	ReasonInvalidSpec          = "InvalidSpec"
	ReasonPathNotFound         = "PathNotFound"
	ReasonProtocolError        = "ProtocolError"
	ReasonPublishRefused       = "PublishRefused"
	ReasonReadFailed           = "ReadFailed"
	ReasonRefNotFound          = "RefNotFound"
	ReasonRepositoryNotFound   = "RepositoryNotFound"
	ReasonTooLarge             = "TooLarge"
	ReasonUnreachable          = "Unreachable"
)

// Reasons of the steps of a plan, beside ReasonChanged, ReasonOverrideEnded, ReasonDeleting and those of a deletion.
const (
	ReasonAdoptAlways = "AdoptAlways"
	ReasonAllowed     = "Allowed"
	ReasonDrift       = "Drift"
	ReasonInventory   = "Inventory"
	ReasonLeftToOther = "LeftToOther"
	ReasonLetGo       = "LetGo"
	ReasonNew         = "New"
	ReasonSettled     = "Settled"
	ReasonUnclaimed   = "Unclaimed"
	ReasonUnowned     = "Unowned"
)

// Actions of the steps of a plan.
const (
	PlanCreate   = "Create"
	PlanAdopt    = "Adopt"
	PlanHandOver = "HandOver"
	PlanUpdate   = "Update"
	PlanCheck    = "Check"
	PlanDelete   = "Delete"
	PlanKeep     = "Keep"
	PlanForget   = "Forget"
)

// PruneOff is the one reason against a prune that the source's owner chose: it is no trouble.
const PruneOff = "prune is off"
