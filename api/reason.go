package api

// Reason is one word that explains a condition, an event, a phase move, a deletion, or a step of a plan. People and scripts
// match it, so its meaning never changes. The constants are untyped, because the generated fields that hold them are
// strings. A function with a Reason parameter accepts them but not a string variable such as a message.
type Reason string

// Not returns the reason of a condition that is False: `NoConflict` for Conflict.
func Not(condition string) string { return "No" + condition }

// Reasons of a project's phase moves, conditions and events.
const (
	ReasonAbandoned        = "Abandoned"
	ReasonAdopted          = "Adopted"
	ReasonChanged          = "Changed"
	ReasonCreated          = "Created"
	ReasonDriftCorrected   = "DriftCorrected"
	ReasonEvicted          = "Evicted"
	ReasonExec             = "Exec"
	ReasonExpiring         = "Expiring"
	ReasonExtended         = "Extended"
	ReasonForced           = "Forced"
	ReasonMoveCancelled    = "MoveCancelled"
	ReasonMoveFailed       = "MoveFailed"
	ReasonMoveRetried      = "MoveRetried"
	ReasonMoved            = "Moved"
	ReasonMoving           = "Moving"
	ReasonNoLongerFits     = "NoLongerFits"
	ReasonNodeDraining     = "NodeDraining"
	ReasonNodeGone         = "NodeGone"
	ReasonNodeLost         = "NodeLost"
	ReasonOrphaned         = "Orphaned"
	ReasonOverridden       = "Overridden"
	ReasonOverrideEnded    = "OverrideEnded"
	ReasonOverrideUndone   = "OverrideUndone"
	ReasonReleased         = "Released"
	ReasonRemoved          = "Removed"
	ReasonRestart          = "Restart"
	ReasonRestoreCancelled = "RestoreCancelled"
	ReasonRestoreFailed    = "RestoreFailed"
	ReasonRestored         = "Restored"
	ReasonRestoring        = "Restoring"
	ReasonRetry            = "Retry"
	ReasonScheduled        = "Scheduled"
	ReasonSecretChanged    = "SecretChanged"
	ReasonSoon             = "Soon"
	ReasonSpecChanged      = "SpecChanged"
	ReasonTerminated       = "Terminated"
	ReasonTerminating      = "Terminating"
	ReasonUnschedulable    = "Unschedulable"
	// ReasonWaiting means that the scheduler has not looked at the project yet.
	ReasonWaiting = "Waiting"
)

// Reasons of a deletion: by a person, by git, or because of an expiry.
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
	// ReasonUpdateFailed is the reason of a project's CondReady if a service's new version failed and the previous one
	// keeps running. It is the end of an update for a caller that waits for it.
	ReasonUpdateFailed = "UpdateFailed"
	ReasonVolumeFailed = "VolumeFailed"
	// ReasonVolumeLost means that the data of a Managed volume is gone. The project is never started on an empty volume
	// instead.
	ReasonVolumeLost = "VolumeLost"
)

// Reasons of CondPortsReady.
const (
	ReasonPortsOpen      = "PortsOpen"
	ReasonPortNotOffered = "PortNotOffered"
	ReasonPortNotOpen    = "PortNotOpen"
	ReasonPortOpening    = "PortOpening"
)

// Reasons of CondIngressReady.
const (
	// ReasonIngressServed is of the event after the condition was False.
	ReasonIngressServed     = "IngressServed"
	ReasonNoPublicIngress   = "NoPublicIngress"
	ReasonPasswordsUnusable = "PasswordsUnusable"
)

// Reasons of a volume's events.
const (
	ReasonVolumeDeleted    = "VolumeDeleted"
	ReasonVolumeDeleting   = "VolumeDeleting"
	ReasonVolumeFound      = "VolumeFound"
	ReasonVolumeReattached = "VolumeReattached"
	ReasonVolumeRecreated  = "VolumeRecreated"
	ReasonVolumeReleased   = "VolumeReleased"
	ReasonVolumeRetained   = "VolumeRetained"
)

// Reasons of a project's backups: of their events, of their failures, and of CondBackupStale and CondBackupBlocked.
const (
	ReasonBackupRequested   = "BackupRequested"
	ReasonBackupSucceeded   = "BackupSucceeded"
	ReasonBackupFailed      = "BackupFailed"
	ReasonBackupVerified    = "BackupVerified"
	ReasonBackupNotVerified = "BackupNotVerified"
	ReasonBackupStale       = "BackupStale"

	ReasonBackupCancelled       = "Cancelled"
	ReasonBackupSecret          = "SecretInvalid"
	ReasonHookFailed            = "HookFailed"
	ReasonPauseFailed           = "PauseFailed"
	ReasonRepositoryDenied      = "RepositoryDenied"
	ReasonRepositoryCorrupted   = "RepositoryCorrupted"
	ReasonRepositoryFull        = "RepositoryFull"
	ReasonRepositoryLocked      = "RepositoryLocked"
	ReasonRepositoryNotAllowed  = "RepositoryNotAllowed"
	ReasonRepositoryUnreachable = "RepositoryUnreachable"
	ReasonResticMissing         = "ResticMissing"
	ReasonVolumeUnreadable      = "VolumeUnreadable"
	ReasonWrongPassword         = "WrongPassword"
)

// Reasons of the certificates of public hosts: of events, and of CondCertificateReady.
const (
	ReasonCertificateIssued  = "CertificateIssued"
	ReasonCertificateRenewed = "CertificateRenewed"
	ReasonCertificateFailed  = "CertificateFailed"
	ReasonCertificateMissing = "CertificateMissing"
	// ReasonCertificateRecalled means that the authority wants the certificate to be replaced at once. It usually has revoked it.
	ReasonCertificateRecalled = "CertificateRecalled"
	// ReasonCertificateExpiring means that the certificate of a Secret must be replaced soon.
	ReasonCertificateExpiring = "CertificateExpiring"
	ReasonCertificateValid    = "CertificateValid"
)

// Reasons of failed restores, in addition to those of failed backups.
const (
	// ReasonDiskFull means that the node's disk has no room for the data.
	ReasonDiskFull         = "DiskFull"
	ReasonSnapshotNotFound = "SnapshotNotFound"
	// ReasonVolumeInUse means that a project has used the volume already, so its data may be newer than the snapshot.
	ReasonVolumeInUse = "VolumeInUse"
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
	ReasonRecovered         = "Recovered"
	ReasonRejoined          = "Rejoined"
)

// Reasons of a source's conditions and events, except those of FetchFailed.
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

// Reasons of a source's CondFetchFailed.
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

// Reasons of the steps of a plan, in addition to ReasonChanged, ReasonOverrideEnded, ReasonDeleting and those of a
// deletion.
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

// PruneOff means that the source's owner disabled pruning. It is the only such reason that is not a problem.
const PruneOff = "prune is off"

// ReasonPolicyViolation means that an agent rejected a project because of Violations.
const ReasonPolicyViolation = "PolicyViolation"
