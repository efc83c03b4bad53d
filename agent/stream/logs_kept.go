package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The engine drops a container's log with the container. So the agent keeps the last lines right before it removes a container whose service stays.

const (
	keptLines = 1000
	keptBytes = 256 << 10 // of text
	maxKept   = 16 << 20  // of a file
)

// keptLog is the end of a container's log.
type keptLog struct {
	UID       string           `json:"uid"` // of the project
	Container string           `json:"container"`
	Lines     []engine.LogLine `json:"lines"`
}

// KeptLogs are the ends of the logs of containers that were removed, one file for each service. No value of a Secret is in them.
type KeptLogs struct{ dir string }

// KeptLogsIn returns the logs that are kept in a folder.
func KeptLogsIn(dir string) *KeptLogs { return &KeptLogs{dir: dir} }

// Keep keeps the end of a container's log. A container that had values of Secrets which this agent does not know is not kept: they could not be
// taken out. An error delays nothing.
func (k *KeptLogs) Keep(ctx context.Context, eng engine.Streams, want *step.Want, c engine.Container) error {
	service := c.Labels[api.LabelService]
	svc := want.Service(service)
	if want.Remove || c.StartedAt.IsZero() || c.Labels[api.LabelUID] != want.UID || !api.IsName(service) {
		return nil
	}
	if svc == nil || !want.Knows(svc, &c) {
		_ = os.Remove(k.path(want.Project, service)) // if it stays, it is older than it seems, and no more
		return nil
	}
	kept := keptLog{UID: want.UID, Container: c.ID}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := eng.Logs(ctx, c.ID, engine.LogOptions{Tail: keptLines}, func(l engine.LogLine) error {
		l.Text = want.Values.Text(l.Text)
		kept.Lines = append(kept.Lines, l)
		return nil
	})
	if err != nil {
		return err
	}
	kept.Lines = lastOf(kept.Lines, keptBytes)
	return k.save(want.Project, service, kept)
}

func (k *KeptLogs) save(project, service string, kept keptLog) error {
	data, err := json.Marshal(kept)
	if err == nil {
		err = os.MkdirAll(k.dir, 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(k.path(project, service), data, 0o600)
	}
	return err
}

// load returns the log that is kept of a service; an empty one if there is none, or if it cannot be read.
func (k *KeptLogs) load(project, service string) keptLog {
	var kept keptLog
	data, err := os.ReadFile(k.path(project, service))
	if err != nil || len(data) > maxKept || json.Unmarshal(data, &kept) != nil {
		return keptLog{}
	}
	return kept
}

// Remove removes the logs that are kept of a project.
func (k *KeptLogs) Remove(project string) error {
	logs, err := filepath.Glob(k.path(project, "*"))
	if err != nil {
		return fmt.Errorf("find the logs that were kept of %s: %w", project, err)
	}
	for _, path := range logs {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the logs that were kept of %s: %w", project, err)
		}
	}
	return nil
}

// path of a service's log. Neither name has a dot.
func (k *KeptLogs) path(project, service string) string {
	return filepath.Join(k.dir, project+"."+service+".json")
}

// lastOf are the last lines whose text has at most so many bytes.
func lastOf(lines []engine.LogLine, bytes int) []engine.LogLine {
	for i, l := range slices.Backward(lines) {
		if bytes -= len(l.Text); bytes < 0 {
			return lines[i+1:]
		}
	}
	return lines
}

// since returns the lines that a request asks for; none where the log is that of one of these containers, or of another
// project with the same name.
func (k keptLog) since(now []engine.Container, request *carav1.LogsRequest) *lastLines {
	last := &lastLines{most: int(request.GetTail())}
	for _, c := range now {
		if c.ID == k.Container || c.Labels[api.LabelUID] != k.UID {
			return last
		}
	}
	for _, l := range k.Lines {
		if request.GetSince() == nil || !l.Time.Before(request.GetSince().AsTime()) {
			last.add(l)
		}
	}
	return last
}
