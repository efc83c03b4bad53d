// Package engine is the interface between the agent and a container engine, and the types that cross it. On the straight line
// it stands between the agent's loop, which calls it, and agent/docker, which implements it.
//
// What holds: an error says whether the engine answered (ErrUnavailable) and what it answered (ErrNotFound, ErrForeign, ErrInvalid,
// ErrNoRoom), so no caller reads an error's text. agent/enginetest is the contract suite that every engine passes.
package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The kinds of an engine's errors. The agent retries any other error a few times.
var (
	// ErrUnavailable: the engine did not answer, or not in time. It says nothing about any container.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrNotFound: the engine answered that the thing does not exist.
	ErrNotFound = errors.New("not found in the engine")
	// ErrForeign: the name that we need is taken by a thing that this agent did not make.
	ErrForeign = errors.New("name taken by something that is not of this cluster and node")
	// ErrInvalid: the engine, or a registry, will never accept this, however often it is asked.
	ErrInvalid = errors.New("refused")
	// ErrNoRoom: the node has no more of what is asked for until something else gives it back.
	ErrNoRoom = errors.New("no room")
	// ErrRegistry: the registry did not answer, or answered that it cannot now.
	ErrRegistry = errors.New("registry unavailable")
)

// Engine is what the agent uses of a container engine. Every call ends in bounded time: a call that waits for one answer fails with
// ErrUnavailable, and streams and pulls end when nothing has moved for long.
type Engine interface {
	Containers
	Lifecycle
	Networks
	Volumes
	Images
	Streams
	Machine
}

// Containers finds, makes and removes containers.
type Containers interface {
	// ListContainers returns those that carry all labels, whatever their state. An empty value matches any value.
	ListContainers(ctx context.Context, labels map[string]string) ([]Container, error)
	// InspectContainer returns all there is to know; ErrNotFound.
	InspectContainer(ctx context.Context, id string) (Container, error)
	// CreateContainer makes one, not started. Where one of that name is there with the very same labels it is adopted:
	// an earlier call succeeded and its answer was lost. Otherwise a taken name is ErrForeign.
	CreateContainer(ctx context.Context, spec ContainerSpec) (id string, err error)
	// RemoveContainer removes it, running or not, with its anonymous volumes. One that is gone is no error.
	RemoveContainer(ctx context.Context, id string) error
	// CopyFiles puts files into a container that is not running, over what is there.
	CopyFiles(ctx context.Context, id string, files []File) error
}

// Lifecycle moves a container between its states.
type Lifecycle interface {
	// StartContainer starts it; one that runs is no error.
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, and kills after grace. One that is stopped or gone is no error.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// RenameContainer gives it another name; one that has it already is no error.
	RenameContainer(ctx context.Context, id, name string) error
	// UnpauseContainer lets a paused one go on.
	UnpauseContainer(ctx context.Context, id string) error
	// UpdateContainer gives it other limits, running or not; 0 leaves what there is.
	UpdateContainer(ctx context.Context, id string, limits Limits) error
	// ConnectContainer attaches it to a network under an alias; one that is attached is no error.
	ConnectContainer(ctx context.Context, network, id, alias string) error
}

// Networks finds, makes and removes networks. Subnets come from the agent's own pool.
type Networks interface {
	// ListNetworks returns those that carry all labels.
	ListNetworks(ctx context.Context, labels map[string]string) ([]Network, error)
	// CreateNetwork makes a bridge network with room for as many containers, adopting one of that name with the very same
	// labels; ErrForeign, ErrNoRoom.
	CreateNetwork(ctx context.Context, name string, labels map[string]string, containers int) (Network, error)
	// RemoveNetwork removes it. One that is gone is no error.
	RemoveNetwork(ctx context.Context, id string) error
}

// NetworkPrefix begins the name of a project's network; the project's name follows.
const NetworkPrefix = "cara-"

// Addresses is how many containers fit in a network whose prefix has this length. The network's own address, its gateway and its
// broadcast address cannot be used.
func Addresses(bits int) int { return 1<<(32-bits) - 3 }

// Volumes finds, makes and removes volumes.
type Volumes interface {
	// ListVolumes returns those that carry all labels.
	ListVolumes(ctx context.Context, labels map[string]string) ([]Volume, error)
	// CreateVolume makes one, adopting one of that name with the very same labels; ErrForeign.
	CreateVolume(ctx context.Context, name string, labels map[string]string) error
	// RemoveVolume removes it. One that is gone is no error.
	RemoveVolume(ctx context.Context, name string) error
}

// Images finds and pulls images.
type Images interface {
	// InspectImage returns an image of the engine's store; ErrNotFound.
	InspectImage(ctx context.Context, ref string) (Image, error)
	// PullImage fetches an image. progress is called from its goroutine. ErrInvalid where the registry says no for
	// good, ErrRegistry where asking again may help.
	PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(Progress)) (Image, error)
	// ListImages returns all of the engine's store.
	ListImages(ctx context.Context) ([]StoredImage, error)
	// RemoveImage takes a name away, and the image with its last name; an id stands for an image without one. An image
	// that a container uses, running or not, stays, with an error. One that is gone is no error.
	RemoveImage(ctx context.Context, name string) error
}

// Streams are calls that last.
type Streams interface {
	// Logs calls emit for each line until there are no more, or ctx ends, or emit fails. ErrNotFound.
	Logs(ctx context.Context, id string, options LogOptions, emit func(LogLine) error) error
	// Start runs a command in a running container with its input and output at hand, until Process.End. ErrNotFound.
	Start(ctx context.Context, id string, command Command) (Process, error)
	// Stats calls emit with what a running container uses: once, after a second or two, or each second until ctx ends or it
	// is gone. Of one that does not run there is nothing to say. ErrNotFound.
	Stats(ctx context.Context, id string, follow bool, emit func(ContainerUsage)) error
	// Events calls subscribed once it hears everything from then on, then emit for each event about things that carry
	// labels, until ctx ends or the stream breaks. The error is never nil.
	Events(ctx context.Context, labels map[string]string, subscribed func(), emit func(Event)) error
}

// Process is a command that runs in a container. Write and CloseInput, Resize and Wait may run side by side. Whoever
// started it calls End, whatever became of it.
type Process interface {
	// Write is input. It waits while the command does not read.
	io.Writer
	// CloseInput ends the input.
	CloseInput() error
	// Resize says how large its terminal is.
	Resize(ctx context.Context, size Size) error
	// Wait calls emit for all it writes, at most 32 KiB at a time, and returns its exit code: 127 for a command that is
	// not there and 126 for one that cannot be run, about which the engine writes a line. It fails where ctx ends, or emit does. emit owns its data.
	Wait(ctx context.Context, emit func(data []byte, stderr bool) error) (exitCode int, err error)
	// End lets go of it. One that runs loses its input, is hung up on after a while, and killed after another where the
	// agent can reach it; when ctx ends that goes without waiting.
	End(ctx context.Context)
}

// Machine is what the engine says of itself.
type Machine interface {
	// Ping asks for a sign of life.
	Ping(ctx context.Context) error
	// Info describes the machine. It is slow: never in a loop.
	Info(ctx context.Context) (Info, error)
	// SubnetCapacity is how many project networks the pool holds in all.
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

// Container is one container of the engine. A list fills in ID, Name, Labels, CreatedAt, State, Networks, Image and
// ImageID.
type Container struct {
	ID     string
	Name   string
	Labels map[string]string
	// CreatedAt never changes, unlike StartedAt; a list gives it in whole seconds.
	CreatedAt time.Time
	State     string
	ExitCode  int32
	// OOMKilled says that the kernel ended it for want of memory.
	OOMKilled bool
	// StartError is what the engine said when it could not start it.
	StartError string
	// StartedAt and FinishedAt are zero for never. They are by the engine's clock, and by the agent's in a Have: see sight.
	StartedAt  time.Time
	FinishedAt time.Time
	// ReportedStart is StartedAt by the engine's clock, for people. Only sight sets it.
	ReportedStart time.Time
	// Networks it is attached to, by name.
	Networks map[string]Attachment
	// Image is the reference that it was made from, ImageID what that led to.
	Image   string
	ImageID string
	// Limits it has now.
	Limits Limits
	// Grace it was made with: how long it may take to stop.
	Grace time.Duration
}

// EngineStart is when the container was started last, by the engine's clock: it names a run.
func (c *Container) EngineStart() time.Time { return cmp.Or(c.ReportedStart, c.StartedAt) }

// Attachment is a container's place on a network.
type Attachment struct {
	NetworkID string // empty before the first start
	IP        string // empty while it does not run
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
}

// Image is one image of the engine's store.
type Image struct {
	ID string
	// Digest is `repository@sha256:...` as the registry knows it; empty for an image that no registry knows.
	Digest string
	// Check is the image's HEALTHCHECK, its defaults filled in; nil where it has none.
	Check *carav1.Healthcheck
	// Volumes are the paths that the image declares as volumes (VOLUME), in order.
	Volumes []string
}

// StoredImage is one image in the list of the engine's store.
type StoredImage struct {
	ID   string
	Tags []string // `repository:tag`
	Size int64    // bytes, layers that others share included
}

// ContainerSpec is a container to make. What the manifest says is in Service, as normalised; the rest is what only the
// agent knows.
type ContainerSpec struct {
	Name    string
	Labels  map[string]string // the service's own and ours
	Network string            // by name
	Service *carav1.Service
	Env     []string          // NAME=value, secrets filled in
	Volumes map[string]string // the engine's name of each volume of the project
}

// File is a small file to put into a container.
type File struct {
	Path string
	// Root is the innermost volume that it lies in, which it can be put into though all else is read-only; empty for none.
	Root    string
	Content []byte
	Mode    int64
}

// Progress of a pull.
type Progress struct {
	Done, Total int64 // bytes, of the layers seen so far
	Layers      int
	Ready       int // layers that are there
}

// LogOptions say which lines.
type LogOptions struct {
	Follow bool
	Tail   int       // how many of the last; 0 for all, below 0 for none. Not with Follow
	Last   int       // a hint, without Tail: about so many of the last are enough, and the first may be a part of one; 0 for all
	Whole  bool      // leave out a last line of which more may come
	Since  time.Time // the first moment; zero: from the first line
	Until  time.Time // the last; zero: to the last line. Not with Follow or Tail
}

// LogLine is one line that a container wrote, cut at 16 KiB.
type LogLine struct {
	Size   int // of the whole line in bytes, where it was cut; else 0
	Time   time.Time
	Stderr bool
	Text   string
}

// Command is what to run in a container. User and WorkingDir are the container's own where empty.
type Command struct {
	Args       []string
	Stdin, TTY bool
	User       string
	WorkingDir string
}

// Size of a terminal in characters.
type Size struct{ Rows, Columns int }

// ContainerUsage is what a container uses.
type ContainerUsage struct {
	CPUMillis      int64 // thousandths of a core over the last second
	Memory         int64 // bytes, without page cache that can be dropped
	MemoryLimit    int64 // bytes; the machine's memory where it has no limit
	Received, Sent int64 // bytes over its network since it started
	PIDs           int64 // processes and threads
}

// Event is something that happened in the engine: a hint to look.
type Event struct {
	Project string
	Action  string
}

// Info is what the engine says of its machine.
type Info struct {
	Platform string // os/arch
	Version  string
	Hostname string
	CPUs     int
	Memory   int64  // bytes
	Root     string // where the engine keeps its data
}
