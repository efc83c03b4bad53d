package api

import (
	"net"

	"k8s.io/apimachinery/pkg/util/validation"
)

// APIVersion is the only version of the manifests.
const APIVersion = "caravanserai/v1"

// Kinds of objects.
const (
	KindProject   = "Project"
	KindNode      = "Node"
	KindSource    = "Source"
	KindSecret    = "Secret"
	KindEvent     = "Event"
	KindClaim     = "Claim"
	KindOverride  = "Override"
	KindTombstone = "Tombstone"
	KindRevision  = "Revision"
	KindToken     = "Token"
	KindSession   = "Session"
	KindVolume    = "Volume"
)

// States of a node.
const (
	NodeReady    = "Ready"
	NodeNotReady = "NotReady"
	NodeDraining = "Draining"
)

// States of a Managed volume.
const (
	VolumeInUse    = "InUse"
	VolumeRetained = "Retained"
	VolumeLost     = "Lost"
	VolumeCopying  = "Copying"
	VolumeDeleting = "Deleting"
)

// Labels of everything that an agent creates in its engine. They are the identity of an object; names are for people.
const (
	LabelCluster  = "cara.cluster"
	LabelNode     = "cara.node"
	LabelProject  = "cara.project"
	LabelUID      = "cara.uid"
	LabelService  = "cara.service"
	LabelSpecHash = "cara.spec-hash"
	LabelEpoch    = "cara.epoch"

	// LabelVolume is `PROJECT.NAME`. A Managed volume has LabelCluster, LabelNode and these three, and no other label of those
	// above: it belongs to no assignment. LabelVolumeUID is the uid of the Volume object. LabelOwner is the project's owner
	// when the volume was made.
	LabelVolume    = "cara.volume"
	LabelVolumeUID = "cara.volume-uid"
	LabelOwner     = "cara.owner"

	// LabelPrefix is reserved: no service may set a label that begins with it.
	LabelPrefix = "cara."
)

// ReservedName cannot be the name of an object: `/api/v1/projects/watch` is the stream of all projects.
const ReservedName = "watch"

// Never is the value of spec.rescheduleAfter that keeps a project on its lost node.
const Never = "never"

// Values of enumeration fields.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"

	PullIfNotPresent = "IfNotPresent"
	PullAlways       = "Always"
	PullNever        = "Never"

	DependsStarted   = "Started"
	DependsHealthy   = "Healthy"
	DependsCompleted = "Completed"

	UpdateStopFirst  = "stop-first"
	UpdateStartFirst = "start-first"

	VolumeEphemeral = "Ephemeral"
	VolumeManaged   = "Managed"
	VolumeHost      = "Host"

	ReclaimRetain = "Retain"
	ReclaimDelete = "Delete"

	ScopeInternal = "Internal"
	ScopePublic   = "Public"

	TLSAuto = "Auto"
	TLSOff  = "Off"

	SecretOpaque    = "Opaque"
	SecretRegistry  = "registry"
	SecretBackup    = "backup"
	SecretTLS       = "tls"
	SecretBasicAuth = "basicAuth"

	VerifyWeekly = "weekly"

	SessionPage     = "page"
	SessionCaractrl = "caractrl"

	AdoptNever     = "Never"
	AdoptIfUnowned = "IfUnowned"
	AdoptAlways    = "Always"

	OnDeleteOrphan = "Orphan"
	OnDeleteDelete = "Delete"
)

// IsName reports whether a name is valid for an object. It becomes a part of host names and file names.
func IsName(name string) bool { return len(validation.IsDNS1123Label(name)) == 0 }

// IsHost reports whether a text can be the host of a request that a project has claimed: a host name in lower case.
func IsHost(host string) bool {
	return len(validation.IsDNS1123Subdomain(host)) == 0 && net.ParseIP(host) == nil
}

// IsSecretKey reports whether a text can be a key of a Secret. Other texts may be a value in the wrong place.
func IsSecretKey(key string) bool { return len(validation.IsConfigMapKey(key)) == 0 }

// SOPSValue is how the text of each value begins that SOPS has encrypted. StillEncrypted is what is wrong with it in a Secret.
const (
	SOPSValue      = "ENC[AES256_GCM,"
	StillEncrypted = "is still encrypted by SOPS; decrypt the whole file, with its sops block"
)
