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

// The engine deletes a container's log with the container. So before the agent removes a container whose service stays, it
// stores the last lines.

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

// KeptLogs are the ends of the logs of removed containers, one file per service. They contain no value of a Secret.
type KeptLogs struct{ dir string }

// KeptLogsIn returns the logs that are stored in a folder.
func KeptLogsIn(dir string) *KeptLogs { return &KeptLogs{dir: dir} }

// Keep stores the end of a container's log. The log of a container with Secret values that this agent does not know is not
// stored, because they could not be removed from it. An error delays nothing.
func (k *KeptLogs) Keep(ctx context.Context, eng engine.Streams, want *step.Want, c engine.Container) error {
	service := c.Labels[api.LabelService]
	svc := want.Service(service)
	if want.Remove || c.StartedAt.IsZero() || c.Labels[api.LabelUID] != want.UID || !api.IsName(service) {
		return nil
	}
	if svc == nil || !want.Knows(svc, &c) {
		_ = os.Remove(k.path(want.Project, service)) // if it stays, it is only older than it seems
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

// load returns the stored log of a service, or an empty one if there is none or it cannot be read.
func (k *KeptLogs) load(project, service string) keptLog {
	var kept keptLog
	data, err := os.ReadFile(k.path(project, service))
	if err != nil || len(data) > maxKept || json.Unmarshal(data, &kept) != nil {
		return keptLog{}
	}
	return kept
}

// Remove removes the stored logs of a project.
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

// path returns the path of a service's log. Neither name contains a dot.
func (k *KeptLogs) path(project, service string) string {
	return filepath.Join(k.dir, project+"."+service+".json")
}

// lastOf returns the last lines whose text has at most the given number of bytes.
func lastOf(lines []engine.LogLine, bytes int) []engine.LogLine {
	for i, l := range slices.Backward(lines) {
		if bytes -= len(l.Text); bytes < 0 {
			return lines[i+1:]
		}
	}
	return lines
}

// since returns the requested lines, or none if the log belongs to one of these containers, or to another project with the
// same name.
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
