package backup

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Host is the host of every snapshot. The node is not part of it, because a project keeps its snapshots when it moves.
const Host = "cara"

// Tags of snapshots.
const (
	tagProject = "project="
	tagVolume  = "volume="
	tagUID     = "uid="
	tagFirst   = "pass=first" // was made while the project ran
)

// Volume is one volume to back up.
type Volume struct {
	Name, UID string
	Path      string // directory with its data
}

// backupArgs are the arguments of restic that copy a volume. restic runs in the parent of the volume's directory: the snapshot
// then has that directory alone, with its owner and mode. parent is the snapshot to compare with; empty for the last one.
func backupArgs(project string, v Volume, parent string, first bool) []string {
	args := []string{
		"backup", "--json", "--one-file-system", "--host", Host,
		"--tag", tagProject + project, "--tag", tagVolume + v.Name, "--tag", tagUID + v.UID,
	}
	if first {
		args = append(args, "--tag", tagFirst)
	}
	if parent != "" {
		args = append(args, "--parent", parent)
	}
	return append(args, "--", filepath.Base(v.Path))
}

// removeArgs remove snapshots by id.
func removeArgs(ids []string) []string { return append([]string{"forget", "--json", "--"}, ids...) }

// keepArgs remove the snapshots of a volume that no rule keeps, and free their space. They return nil if all stay. Only
// snapshots with both tags are considered, as one group, whatever their path: it changes with the uid of the volume.
func keepArgs(project, volume string, keep *carav1.BackupKeep) []string {
	args := []string{
		"forget", "--json", "--host", Host, "--tag", tagProject + project + "," + tagVolume + volume, "--group-by", "host", "--prune", "--max-unused", "10%",
	}
	rules := len(args)
	for _, rule := range []struct {
		flag string
		n    int32
	}{
		{"--keep-last", keep.GetLast()}, {"--keep-daily", keep.GetDaily()}, {"--keep-weekly", keep.GetWeekly()}, {"--keep-monthly", keep.GetMonthly()},
	} {
		if rule.n > 0 {
			args = append(args, rule.flag, strconv.Itoa(int(rule.n)))
		}
	}
	if len(args) == rules {
		return nil
	}
	return args
}

// searchPath is where restic and ssh are looked for.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inherited are the variables that restic gets from the agent: how to reach the network, and whom to trust.
func inherited() []string {
	return []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}
}

// environment returns the whole environment of restic. dir is a directory of the agent's own: it is the home, so that restic and
// ssh find no configuration there. passwordFile is where restic reads the password.
func environment(agent []string, values map[string][]byte, dir, passwordFile string) []string {
	env := []string{
		"PATH=" + searchPath, "HOME=" + dir, "LC_ALL=C", "RESTIC_CACHE_DIR=" + filepath.Join(dir, cacheDir), "TMPDIR=" + filepath.Join(dir, temporaryDir), "RESTIC_PROGRESS_FPS=0.1",
		"AWS_EC2_METADATA_DISABLED=true",
		"RESTIC_REPOSITORY=" + text(values, api.BackupRepository), "RESTIC_PASSWORD_FILE=" + passwordFile,
	}
	for _, variable := range agent {
		if name, _, _ := strings.Cut(variable, "="); slices.Contains(inherited(), name) {
			env = append(env, variable)
		}
	}
	for _, name := range api.BackupVariables() {
		if value := text(values, name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func text(values map[string][]byte, key string) string { return strings.TrimSpace(string(values[key])) }

// sshArgs are the options of restic for a repository behind ssh: ssh reads no configuration, uses only the given key, and
// connects only to a host that it knows. It writes its messages to logFile. They are nil for other repositories.
func sshArgs(values map[string][]byte, keyFile, hostsFile, logFile string) []string {
	at, ok := api.ParseSFTP(text(values, api.BackupRepository))
	if !ok {
		return nil
	}
	command := []string{
		"ssh", "-F", "/dev/null", "-E", logFile, "-i", keyFile, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + hostsFile, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=20",
	}
	if at.Port != "" {
		command = append(command, "-p", at.Port)
	}
	return []string{"-o", "sftp.command=" + strings.Join(append(command, "-l", at.User, at.Host, "-s", "sftp"), " ")}
}

// allowed reports whether a repository may be used on this node: a directory must be below one that the operator names.
func allowed(repository string, dirs []string) error {
	if !api.IsLocalBackup(repository) {
		return nil
	}
	for _, dir := range dirs {
		if rel, err := filepath.Rel(dir, repository); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return nil
		}
	}
	if len(dirs) == 0 {
		return fmt.Errorf("the repository is a directory, and this node's agent has no --backup-dir: use another repository, or ask the node's operator to set it")
	}
	return fmt.Errorf("the repository is a directory that is not below a --backup-dir of this node's agent (%s): use another one, or ask the node's operator to add it",
		strings.Join(dirs, ", "))
}
