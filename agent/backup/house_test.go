package backup

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testrestic"
)

const password = testrestic.Password

// site is a machine with restic, a volume and a repository.
type site struct {
	*Runner
	job    Job
	volume string // directory of the data
	log    string // arguments and environment of every run of restic
}

// newSite is a site with a repository: a directory, or what the values name, which may not exist yet.
func newSite(t *testing.T, values map[string][]byte) *site {
	t.Helper()
	testneed.NotShort(t)
	restic := testneed.Program(t, "restic", "restic")
	dir := t.TempDir()
	s := &site{volume: filepath.Join(dir, "volumes", "cara-shop.db-0123", "_data"), log: filepath.Join(dir, "agent", temporaryDir, "restic.log")}
	s.Runner = &Runner{Dir: filepath.Join(dir, "agent"), Dirs: []string{dir}, Restic: filepath.Join(dir, "restic"), Environ: []string{"RESTIC_PASSWORD=of the machine"}}
	script(t, s.Restic, `{ printf '%s\n' "$@"; env; } >>`+s.log+"\nexec "+restic+` "$@"`)
	if values == nil {
		values = map[string][]byte{api.BackupRepository: []byte(filepath.Join(dir, "repository"))}
		testrestic.New(t, filepath.Join(dir, "repository"))
	}
	if values[api.BackupPassword] == nil {
		values[api.BackupPassword] = []byte(password + "\n")
	}
	s.job = Job{Project: "shop", Volumes: []Volume{{Name: "db", UID: "0123", Path: s.volume}}, Spec: &carav1.Backup{}, Values: values}
	s.write(t, "rows", "1")
	return s
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.volume, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// backUp makes a backup that must succeed without a warning.
func (s *site) backUp(t *testing.T, c Containers) *Result {
	t.Helper()
	result, f := s.Run(t.Context(), s.job, c)
	if f != nil {
		t.Fatalf("%s: %v", f.Reason, f)
	}
	if result.Warning != nil {
		t.Fatalf("%s: %v", result.Warning.Reason, result.Warning)
	}
	return result
}

// restic runs restic as a person would, without Cara.
func (s *site) restic(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("restic %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *site) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := testneed.Look("restic")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+text(s.job.Values, api.BackupRepository), "RESTIC_PASSWORD="+password)
	for _, name := range api.BackupVariables() {
		if value := text(s.job.Values, name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// snapshots returns the ids of all snapshots with some tags.
func (s *site) snapshots(t *testing.T, tags ...string) []string {
	t.Helper()
	args := []string{"snapshots", "--json"}
	if len(tags) > 0 {
		args = append(args, "--tag", strings.Join(tags, ","))
	}
	out, err := s.command(t, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := parseIDs(out)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// quiet checks that no secret was in an argument, and the password was not in restic's environment either.
func (s *site) quiet(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), password) || strings.Contains(string(log), "of the machine") {
		t.Error("the password was in an argument or in the environment")
	}
	for line := range strings.Lines(string(log)) {
		name, value, isVariable := strings.Cut(strings.TrimSpace(line), "=")
		for key, secret := range s.job.Values {
			text := strings.TrimSpace(string(secret))
			if strings.Contains(line, text) && (!isVariable || value != text || key != name && (key != api.BackupRepository || name != "RESTIC_REPOSITORY")) &&
				!strings.HasPrefix(line, "sftp.command=") {
				t.Errorf("the value of %s was in %q", key, name)
			}
		}
	}
}

// hand is a project whose containers are functions. It records what was done.
type hand struct {
	exec          func(service string, command []string) (int, string, error)
	pause, resume func() error
	done          []string
	late          bool // Resume was called with a context that had ended
}

func (h *hand) Exec(ctx context.Context, service string, command []string) (int, string, error) {
	h.done = append(h.done, "exec "+service+" "+strings.Join(command, " "))
	if h.exec == nil {
		return 0, "", ctx.Err()
	}
	return h.exec(service, command)
}

func (h *hand) Pause(ctx context.Context) error {
	h.done = append(h.done, "pause")
	if h.pause == nil {
		return ctx.Err()
	}
	return h.pause()
}

func (h *hand) Resume(ctx context.Context) error {
	h.done = append(h.done, "resume")
	h.late = ctx.Err() != nil
	if h.resume == nil {
		return ctx.Err()
	}
	return h.resume()
}

func (h *hand) did(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(h.done, want) {
		t.Errorf("done %v, want %v", h.done, want)
	}
}
