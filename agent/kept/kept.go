// Package kept stores what the server has told an agent, so that the agent can use it after a restart while the server is
// unreachable.
//
// Invariants:
//
//   - A file is replaced as a whole, so a crash leaves the old or the new content. Only the agent's user can read it, because it
//     may have private keys.
//   - A change is on disk soon, also after a write that took long or failed: what a crash loses is what changed in the last seconds.
//   - Messages and errors contain nothing of the content.
package kept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// delay batches changes. The whole message is written each time, so the delay grows with the duration of a write: writing
	// takes at most a twentieth of the time, until the delay is maxDelay.
	delay = 100 * time.Millisecond
	// maxDelay is also the wait after a write that failed.
	maxDelay = 5 * time.Second
	// maxBytes limits the size of a file that is read.
	maxBytes = 256 << 20
)

// File stores one message.
type File struct {
	path, what string
	log        *slog.Logger
	changed    chan struct{} // has an entry while the message is not on disk
}

// New returns a File. what names the content in logs, such as "routes". If path is empty, nothing is stored.
func New(path, what string, log *slog.Logger) *File {
	return &File{path: path, what: what, log: log, changed: make(chan struct{}, 1)}
}

// Load reads the message of an earlier run and reports whether there is one. Without it, the agent waits for the server.
func (f *File) Load(into proto.Message) bool {
	if f.path == "" {
		return false
	}
	err := read(f.path, into)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("kept file not read", "what", f.what, "file", f.path, "error", err)
	}
	return err == nil
}

func read(path string, into proto.Message) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return err
	}
	if len(data) > maxBytes {
		return fmt.Errorf("it is larger than %d bytes", maxBytes)
	}
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, into) != nil {
		return errors.New("it is damaged; the server sends its content again") // the error would quote the content
	}
	return nil
}

// Changed makes Run store the message.
func (f *File) Changed() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Run stores the current message after each change until ctx ends, and then the change that is not stored yet. A write that fails
// is tried again.
func (f *File) Run(ctx context.Context, current func() proto.Message) {
	if f.path == "" {
		return
	}
	wait, failing := delay, false
	for ctx.Err() == nil || len(f.changed) > 0 {
		select {
		case <-f.changed:
		case <-ctx.Done():
			continue
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		began := time.Now()
		err := f.store(current())
		if err != nil && !failing {
			f.log.Warn("file not kept", "what", f.what, "file", f.path, "error", err)
		}
		wait = min(max(delay, 20*time.Since(began)), maxDelay)
		if failing = err != nil; failing && ctx.Err() == nil {
			wait = maxDelay
			f.Changed()
		}
	}
}

func (f *File) store(m proto.Message) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return errors.New("it cannot be encoded") // the error may quote the content
	}
	return renameio.WriteFile(f.path, data, 0o600)
}
