// Package engine defines the interface between the agent and a container engine. The agent calls it, and agent/docker
// implements it.
//
// An error says whether the engine answered (ErrUnavailable) and what it answered (ErrNotFound, ErrForeign, ErrInvalid,
// ErrNoRoom, ErrStuck, ErrLost), so no caller parses an error's text. agent/enginetest is the contract suite for every engine.
package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Errors of an engine. The agent retries any other error a few times.
var (
	// ErrUnavailable means that the engine did not answer in time. It says nothing about any container.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrNotFound means that the engine answered that the object does not exist.
	ErrNotFound = errors.New("not found in the engine")
	// ErrForeign means that an object that this agent did not create has the name.
	ErrForeign = errors.New("name taken by something that is not of this cluster and node")
	// ErrInvalid means that the engine, or a registry, will never accept the request.
	ErrInvalid = errors.New("refused")
	// ErrNoRoom means that the node has none of a resource left until something else releases it.
	ErrNoRoom = errors.New("no room")
	// ErrStuck means that the engine will never start this container again. A new container can take its place.
	ErrStuck = errors.New("the engine lost this container during an earlier start")
	// ErrLost means that a process of this container runs, and that the engine does not know of it and cannot end it. A new
	// container must not take its place.
	ErrLost = errors.New("the engine has lost a process of this container, which still runs")
	// ErrRegistry means that the registry did not answer, or is unavailable now.
	ErrRegistry = errors.New("registry unavailable")
)

// Engine is the interface that the agent uses. Every call ends in bounded time: a call with one response fails with
// ErrUnavailable, and streams and pulls end if there is no progress for long.
type Engine interface {
	Containers
	Lifecycle
	Networks
	Volumes
	Images
	Streams
	Machine
}

// Containers finds, creates and removes containers.
type Containers interface {
	// ListContainers returns the containers that have all labels, in any state. An empty value matches any value.
	ListContainers(ctx context.Context, labels map[string]string) ([]Container, error)
	// InspectContainer returns all details, or ErrNotFound.
	InspectContainer(ctx context.Context, id string) (Container, error)
	// CreateContainer creates a container without starting it. An existing container with the name and exactly these labels is
	// adopted: an earlier call succeeded and its response was lost. If the name is taken otherwise, the error is ErrForeign.
	CreateContainer(ctx context.Context, spec ContainerSpec) (id string, err error)
	// RemoveContainer removes a container, running or not, with its anonymous volumes and the processes that the engine has lost.
	// It succeeds if the container does not exist.
	RemoveContainer(ctx context.Context, id string) error
	// CopyFiles copies files into a container that is not running, and replaces existing files.
	CopyFiles(ctx context.Context, id string, files []File) error
}

// Lifecycle changes the state of a container.
type Lifecycle interface {
	// StartContainer succeeds if the container is already running. It may return ErrStuck or ErrLost.
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, and kills the container after grace. It succeeds if the container is stopped or does
	// not exist.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// KillLost kills the processes of containers with these labels that the engine does not know to run, as far as the agent can
	// see and signal them. It returns these containers. An engine can lose processes when it ends during a start.
	KillLost(ctx context.Context, labels map[string]string) ([]Container, error)
	// RenameContainer succeeds if the container already has the name.
	RenameContainer(ctx context.Context, id, name string) error
	// PauseContainer suspends all processes of a running container. It succeeds if the container is paused.
	PauseContainer(ctx context.Context, id string) error
	// UnpauseContainer resumes a paused container.
	UnpauseContainer(ctx context.Context, id string) error
	// UpdateContainer changes a container's limits, running or not. 0 leaves a limit unchanged.
	UpdateContainer(ctx context.Context, id string, limits Limits) error
	// ConnectContainer connects a container to a network under an alias. It succeeds if it is already connected.
	ConnectContainer(ctx context.Context, network, id, alias string) error
}

// Networks finds, creates and removes networks. Subnets come from the agent's own pool.
type Networks interface {
	// ListNetworks returns the networks that have all labels.
	ListNetworks(ctx context.Context, labels map[string]string) ([]Network, error)
	// CreateNetwork creates a bridge network with room for that many containers. It adopts an existing network with the name
	// and exactly these labels. It may return ErrForeign or ErrNoRoom.
	CreateNetwork(ctx context.Context, name string, labels map[string]string, containers int) (Network, error)
	// RemoveNetwork succeeds if the network does not exist.
	RemoveNetwork(ctx context.Context, id string) error
}

// NetworkPrefix is the prefix of the name of a project's network, before the project's name.
const NetworkPrefix = "cara-"

// Addresses returns how many containers fit into a network with this prefix length. The network address, the gateway and the
// broadcast address are not available.
func Addresses(bits int) int { return 1<<(32-bits) - 3 }

// Volumes finds, creates and removes volumes.
type Volumes interface {
	// ListVolumes returns the volumes that have all labels.
	ListVolumes(ctx context.Context, labels map[string]string) ([]Volume, error)
	// InspectVolume returns one volume, or ErrNotFound.
	InspectVolume(ctx context.Context, name string) (Volume, error)
	// CreateVolume creates a volume. It adopts an existing volume with the name and exactly these labels. It may return
	// ErrForeign.
	CreateVolume(ctx context.Context, name string, labels map[string]string) error
	// RemoveVolume succeeds if the volume does not exist. It fails while a container, running or not, mounts the volume.
	RemoveVolume(ctx context.Context, name string) error
}

// Images finds, pulls and removes images.
type Images interface {
	// InspectImage returns an image in the engine's store by its name or its whole id, or ErrNotFound.
	InspectImage(ctx context.Context, ref string) (Image, error)
	// PullImage pulls an image. It calls progress from its own goroutine. It returns ErrInvalid if the registry refuses
	// permanently, and ErrRegistry if a retry may help.
	PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(Progress)) (Image, error)
	// ListImages returns all images in the engine's store.
	ListImages(ctx context.Context) ([]StoredImage, error)
	// RemoveImage removes a name, and the image with its last name. An image without a name is removed by its id. It returns an
	// error if a container, running or not, uses the image. It succeeds if the image does not exist.
	RemoveImage(ctx context.Context, name string) error
}

// Streams are calls without a single response.
type Streams interface {
	// Logs calls emit for each line until the log ends, ctx ends, or emit fails. It may return ErrNotFound.
	Logs(ctx context.Context, id string, options LogOptions, emit func(LogLine) error) error
	// Start runs a command in a running container and connects its input and output, until Process.End. It may return
	// ErrNotFound.
	Start(ctx context.Context, id string, command Command) (Process, error)
	// Stats calls emit with the resource usage of a running container: once, after a second or two, or every second until ctx
	// ends or the container is removed. It emits nothing for a stopped container. It may return ErrNotFound.
	Stats(ctx context.Context, id string, follow bool, emit func(ContainerUsage)) error
	// Events calls subscribed once no later event can be missed. Then it calls emit for each event about objects with these
	// labels, until ctx ends or the stream breaks. The error is never nil.
	Events(ctx context.Context, labels map[string]string, subscribed func(), emit func(Event)) error
}

// Process is a command that runs in a container. Write and CloseInput, Resize, and Wait may run concurrently. The caller of
// Start must call End in all cases.
type Process interface {
	// Write sends input. It blocks while the command does not read.
	io.Writer
	// CloseInput ends the input.
	CloseInput() error
	// Resize sets the size of the terminal.
	Resize(ctx context.Context, size Size) error
	// Wait calls emit for all output, at most 32 KiB at a time, and returns the exit code: 127 for a command that does not
	// exist and 126 for one that cannot be run; the engine then writes the reason to the output. It fails if ctx ends or emit
	// fails. emit owns its data.
	Wait(ctx context.Context, emit func(data []byte, stderr bool) error) (exitCode int, err error)
	// End releases the process. A running command loses its input, gets a hangup signal after a while, and is killed later if
	// the agent can signal it. When ctx ends, this happens without waiting.
	End(ctx context.Context)
}

// Machine describes the engine and its machine.
type Machine interface {
	// Ping checks that the engine answers.
	Ping(ctx context.Context) error
	// Info describes the machine. It is slow, so never call it in a loop.
	Info(ctx context.Context) (Info, error)
	// SubnetCapacity returns the total number of project networks in the pool.
	SubnetCapacity() int
}

// States of a container.
const (
	StateCreated    = "created"
	StateRunning    = "running"
	StatePaused     = "paused"
	StateRestarting = "restarting"
	StateRemoving   = "removing"
	StateExited     = "exited"
	StateDead       = "dead"
)

// Container is one container of the engine. A list sets only ID, Name, Labels, CreatedAt, State, Networks, Image and
// ImageID.
type Container struct {
	ID     string
	Name   string
	Labels map[string]string
	// CreatedAt never changes, unlike StartedAt. A list returns it in whole seconds.
	CreatedAt time.Time
	State     string
	// PID is the main process on the engine's machine, or 0 if it does not run.
	PID      int
	ExitCode int32
	// OOMKilled is true if the kernel killed it because it ran out of memory.
	OOMKilled bool
	// StartError is the engine's error from a failed start.
	StartError string
	// StartedAt and FinishedAt are zero for never. They use the engine's clock, but in a Have the agent's clock: see sight.
	StartedAt  time.Time
	FinishedAt time.Time
	// ReportedStart is StartedAt by the engine's clock, for display. Only sight sets it.
	ReportedStart time.Time
	// Networks that it is connected to, by name.
	Networks map[string]Attachment
	// Image is the reference it was created from, and ImageID the image that it resolved to.
	Image   string
	ImageID string
	// Mounts are the volumes and host paths that it mounts, by their path in the container.
	Mounts map[string]Source
	// Limits are the current limits.
	Limits Limits
	// Grace is the stop grace period that it was created with. Nil if it is not known.
	Grace *time.Duration
}

// EngineStart returns when the container last started, by the engine's clock. It identifies a run.
func (c *Container) EngineStart() time.Time { return cmp.Or(c.ReportedStart, c.StartedAt) }

// Attachment is a container's connection to a network.
type Attachment struct {
	NetworkID string // empty before the first start
	IP        string // empty while the container is not running
}

// Network is one network of the engine.
type Network struct {
	ID     string
	Name   string
	Labels map[string]string
	Subnet string
}

// Volume is one volume of the engine.
type Volume struct {
	Name   string
	Labels map[string]string
	// Mountpoint is the directory with its data on the engine's machine. Empty if the engine does not say.
	Mountpoint string
}

// Source is what a container mounts: a volume, or a path of the host.
type Source struct {
	Volume   string // by the engine's name
	Path     string // of the host; empty for a volume
	ReadOnly bool
}

// Image is one image in the engine's store.
type Image struct {
	ID string
	// Digest is `repository@sha256:...` as in the registry. Empty for an image that is in no registry.
	Digest string
	// Check is the image's HEALTHCHECK with defaults filled in, or nil if it has none.
	Check *carav1.Healthcheck
	// Volumes are the paths that the image declares with VOLUME, in order.
	Volumes []string
}

// StoredImage is one image in a list of the engine's store.
type StoredImage struct {
	ID   string
	Tags []string // `repository:tag`
	Size int64    // bytes, including shared layers
}

// ContainerSpec is a container to create. Service is the normalised manifest; only the agent knows the rest.
type ContainerSpec struct {
	Name    string
	Labels  map[string]string // the service's own and ours
	Network string            // by name
	Service *carav1.Service
	Env     []string          // NAME=value, with the values of Secrets
	Volumes map[string]Source // by the volume's name in the project; read-only ones are so whatever Service says
}

// File is a small file to copy into a container.
type File struct {
	Path string
	// Root is the innermost volume that contains the file, or empty. Files can be copied into a volume even if the rest of the
	// container is read-only.
	Root    string
	Content []byte
	Mode    int64
}

// Progress of a pull.
type Progress struct {
	Done, Total int64 // bytes, of the layers seen so far
	Layers      int
	Ready       int // complete layers
	Queued      int // layers that the engine downloads later
	Loading     int // layers that it downloads now
}

// LogOptions select log lines.
type LogOptions struct {
	Follow bool
	Tail   int       // how many of the last lines; 0 for all, negative for none; not with Follow
	Last   int       // hint without Tail: this many last lines suffice, the first may be incomplete; 0 for all
	Whole  bool      // omit an incomplete last line
	Since  time.Time // start time; zero means from the first line
	Until  time.Time // end time; zero means to the last line; not with Follow or Tail
}

// LogLine is one line of a container's log, cut at 16 KiB.
type LogLine struct {
	Size   int // of the whole line in bytes if it was cut; otherwise 0
	Time   time.Time
	Stderr bool
	Text   string
}

// Command is a command to run in a container. Empty User and WorkingDir mean those of the container.
type Command struct {
	Args       []string
	Stdin, TTY bool
	User       string
	WorkingDir string
}

// Size of a terminal in characters.
type Size struct{ Rows, Columns int }

// ContainerUsage is the resource usage of a container.
type ContainerUsage struct {
	CPUMillis      int64         // thousandths of a core over the last second
	CPUTime        time.Duration // of all processors together since it started
	Memory         int64         // bytes, without page cache that can be reclaimed
	MemoryLimit    int64         // bytes; the machine's memory if there is no limit
	Received, Sent int64         // bytes over its network since it started
	PIDs           int64         // processes and threads
}

// Event is something that happened in the engine. It is only a hint to look.
type Event struct {
	Project string
	Action  string
}

// Info describes the engine's machine.
type Info struct {
	Platform string // os/arch
	Version  string
	Hostname string
	CPUs     int
	Memory   int64  // bytes
	Root     string // the engine's data directory
}
