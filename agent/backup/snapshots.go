package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// listed is a snapshot in the output of restic snapshots --json.
type listed struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Tags []string  `json:"tags"`
}

func (l listed) short() string { return l.ID[:8] }

// of reports whether it is a snapshot of a volume.
func (l listed) of(project, volume string) bool {
	return slices.Contains(l.Tags, tagProject+project) && slices.Contains(l.Tags, tagVolume+volume)
}

// complete reports whether the snapshot was made after the project was paused.
func (l listed) complete() bool { return !slices.Contains(l.Tags, tagFirst) }

// parseListed returns the snapshots in the output of restic snapshots --json.
func parseListed(stdout []byte) ([]listed, error) {
	var list []listed
	if err := json.Unmarshal(stdout, &list); err != nil {
		return nil, fmt.Errorf("read the list of snapshots: %w", err)
	}
	return slices.DeleteFunc(list, func(l listed) bool { return !isID(l.ID) }), nil
}

// chooseSnapshot returns the snapshot that is asked for, or the newest complete one. Only snapshots of the same project and
// volume count: the repository may have those of other projects.
func chooseSnapshot(list []listed, job Restoration) (listed, *Failure) {
	what := fmt.Sprintf("volume %s of project %s", job.Volume, job.Project)
	own := slices.DeleteFunc(slices.Clone(list), func(l listed) bool { return !l.of(job.Project, job.Volume) })
	usable := slices.DeleteFunc(slices.Clone(own), func(l listed) bool { return !l.complete() })
	if job.Snapshot == "" || job.Snapshot == api.SnapshotLatest {
		if len(usable) == 0 {
			return listed{}, fail(api.ReasonSnapshotNotFound, "the repository has no snapshot of %s: check the Secret of spec.backup.secretRef, and make a backup first", what)
		}
		return slices.MaxFunc(usable, func(a, b listed) int { return a.Time.Compare(b.Time) }), nil
	}
	if !isID(job.Snapshot) {
		return listed{}, fail(api.ReasonSnapshotNotFound, "%q is no id of a snapshot: give at least 8 of its hexadecimal digits, as in restic snapshots", job.Snapshot)
	}
	matches := func(l listed) bool { return strings.HasPrefix(l.ID, job.Snapshot) }
	found := slices.DeleteFunc(slices.Clone(usable), func(l listed) bool { return !matches(l) })
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return listed{}, fail(api.ReasonSnapshotNotFound, "%d snapshots of %s begin with %s: give more digits", len(found), what, job.Snapshot)
	case slices.ContainsFunc(own, matches):
		return listed{}, fail(api.ReasonSnapshotNotFound, "the snapshot %s of %s is the first pass of a backup that did not end, so its files are of different moments: choose another one",
			job.Snapshot, what)
	}
	return listed{}, fail(api.ReasonSnapshotNotFound, "the repository has no snapshot %s of %s; list them with: restic snapshots --tag %s%s,%s%s",
		job.Snapshot, what, tagProject, job.Project, tagVolume, job.Volume)
}

// node is a file in the output of restic ls --json.
type node struct {
	Struct string      `json:"struct_type"`
	Path   string      `json:"path"`
	Kind   string      `json:"type"`
	UID    uint32      `json:"uid"`
	GID    uint32      `json:"gid"`
	Mode   fs.FileMode `json:"mode"`
}

// parseNodes returns the files in the output of restic ls --json.
func parseNodes(stdout []byte) []node {
	var out []node
	lines := bufio.NewScanner(bytes.NewReader(stdout))
	lines.Buffer(nil, maxOutput)
	for lines.Scan() {
		var n node
		if json.Unmarshal(lines.Bytes(), &n) == nil && n.Struct == "node" {
			out = append(out, n)
		}
	}
	return out
}

// parseSize returns the size in the output of restic stats --json.
func parseSize(stdout []byte) (int64, error) {
	var stats struct {
		Bytes *int64 `json:"total_size"`
	}
	if err := json.Unmarshal(stdout, &stats); err != nil {
		return 0, fmt.Errorf("read the size of a snapshot: %w", err)
	}
	if stats.Bytes == nil || *stats.Bytes < 0 {
		return 0, errors.New("read the size of a snapshot: restic printed no total_size")
	}
	return *stats.Bytes, nil
}
