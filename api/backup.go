package api

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Keys of a Secret of type backup. The others are environment variables, see BackupVariables.
const (
	BackupRepository = "repository"
	BackupPassword   = "password"
	BackupSSHKey     = "ssh-privatekey"
	BackupKnownHosts = "known_hosts"
)

// BackupVariables returns the environment variables of restic that a Secret of type backup may set: credentials, and nothing
// that selects a program, a library or a file. restic runs as the agent's user, which is usually root.
func BackupVariables() []string {
	return []string{
		"AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AZURE_ACCOUNT_KEY", "AZURE_ACCOUNT_NAME", "AZURE_ACCOUNT_SAS",
		"B2_ACCOUNT_ID", "B2_ACCOUNT_KEY",
	}
}

// BackupKeys returns all keys that a Secret of type backup may have.
func BackupKeys() []string {
	return append([]string{BackupRepository, BackupPassword, BackupSSHKey, BackupKnownHosts}, BackupVariables()...)
}

// Limits of backups.
const (
	DefaultHookTimeout = 10 * time.Minute
	// maxBackupValue limits a value of a Secret of type backup, in bytes.
	maxBackupValue = 32 << 10
)

// Kinds of repositories, by how their location begins in restic's notation.
const (
	backupLocal = "local"
	backupSFTP  = "sftp"
	backupS3    = "s3"
	backupB2    = "b2"
	backupAzure = "azure"
	backupREST  = "rest"
)

// SFTP is the location of a repository behind ssh.
type SFTP struct{ User, Host, Port, Path string }

// BackupProblem returns why a repository cannot be used with these values of a Secret of type backup, or "". The text
// contains no part of a value. Every kind of repository must bring its credentials, so that restic never uses those that the
// node's machine has for other purposes.
func BackupProblem(values map[string][]byte) string {
	for _, key := range slices.Sorted(slices.Values(BackupKeys())) {
		value := values[key]
		if len(value) > maxBackupValue {
			return fmt.Sprintf("the value of %s has %d bytes, at most %d are allowed", key, len(value), maxBackupValue)
		}
		if text := strings.TrimSpace(string(value)); key != BackupSSHKey && key != BackupKnownHosts && strings.ContainsFunc(text, isControl) {
			return fmt.Sprintf("the value of %s has control characters; write it on one line", key)
		}
	}
	repository := strings.TrimSpace(string(values[BackupRepository]))
	var need []string
	switch kind := BackupRepositoryKind(repository); kind {
	case backupLocal, backupREST:
	case backupSFTP:
		if _, ok := ParseSFTP(repository); !ok {
			return "the repository must be sftp:USER@HOST:/PATH or sftp://USER@HOST:PORT//PATH; names consist of letters, digits, dot, - and _, and do not begin with -"
		}
		need = []string{BackupSSHKey, BackupKnownHosts}
	case backupS3:
		need = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
	case backupB2:
		need = []string{"B2_ACCOUNT_ID", "B2_ACCOUNT_KEY"}
	case backupAzure:
		need = []string{"AZURE_ACCOUNT_NAME"}
	default:
		return "the repository must be a path below a --backup-dir of the node's agent, or begin with s3:, sftp:, rest:, b2: or azure:"
	}
	for _, key := range append([]string{BackupPassword}, need...) {
		if len(strings.TrimSpace(string(values[key]))) == 0 {
			return fmt.Sprintf("the key %s is missing, and this repository needs it", key)
		}
	}
	return ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// BackupRepositoryKind returns the kind of a repository, or "" if Cara does not support it. It does not support rclone and gs,
// because these read files of the node.
func BackupRepositoryKind(repository string) string {
	if path.IsAbs(repository) {
		if path.Clean(repository) == repository {
			return backupLocal
		}
		return ""
	}
	scheme, rest, ok := strings.Cut(repository, ":")
	if !ok || rest == "" || !slices.Contains([]string{backupSFTP, backupS3, backupB2, backupAzure, backupREST}, scheme) {
		return ""
	}
	if scheme == backupREST {
		if u, err := url.Parse(rest); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return ""
		}
	}
	return scheme
}

// IsLocalBackup reports whether a repository is a directory of the node.
func IsLocalBackup(repository string) bool { return BackupRepositoryKind(repository) == backupLocal }

// ParseSFTP parses the location of a repository behind ssh. User, host and port become arguments of ssh, so they consist of
// harmless characters only.
func ParseSFTP(repository string) (SFTP, bool) {
	rest, ok := strings.CutPrefix(repository, backupSFTP+":")
	if !ok {
		return SFTP{}, false
	}
	var out SFTP
	if after, isURL := strings.CutPrefix(rest, "//"); isURL {
		at, dir, found := strings.Cut(after, "/")
		if !found {
			return SFTP{}, false
		}
		out.User, out.Host, ok = strings.Cut(at, "@")
		out.Host, out.Port, _ = strings.Cut(out.Host, ":")
		out.Path = dir
	} else {
		var at string
		at, out.Path, _ = strings.Cut(rest, ":")
		out.User, out.Host, ok = strings.Cut(at, "@")
	}
	ok = ok && sshName(out.User) && sshName(out.Host) && (out.Port == "" || sshPort(out.Port)) && out.Path != ""
	return out, ok
}

func sshName(s string) bool {
	return s != "" && s[0] != '-' && strings.Trim(s, wordCharacters+".") == ""
}

func sshPort(s string) bool { return len(s) <= 5 && strings.Trim(s, "0123456789") == "" }

// canonBackup gives the fields of spec.backup their canonical spelling, and removes what has no effect.
func canonBackup(s *carav1.ProjectSpec) {
	b := s.GetBackup()
	if b == nil {
		return
	}
	if b.Pause != nil && b.GetPause() {
		b.Pause = nil // the default
	}
	if h := b.GetHooks(); h != nil && h.GetBefore() == nil && h.GetAfter() == nil {
		b.Hooks = nil
	}
	for _, h := range []*carav1.BackupHook{b.GetHooks().GetBefore(), b.GetHooks().GetAfter()} {
		if h != nil {
			canonDuration(&h.Timeout)
		}
	}
	if sch := b.GetSchedule(); sch != nil {
		sch.Cron = strings.Join(strings.Fields(sch.GetCron()), " ")
	}
}

// backupDefaults visits the fields of spec.backup that have a default.
func backupDefaults(b *carav1.Backup, str func(*string, string)) {
	if b.GetSchedule() != nil {
		str(&b.Schedule.TimeZone, "UTC")
	}
	for _, h := range []*carav1.BackupHook{b.GetHooks().GetBefore(), b.GetHooks().GetAfter()} {
		if h != nil {
			str(&h.Timeout, DefaultHookTimeout.String())
		}
	}
}

// BackupPauses reports whether the containers are paused during the last pass of a backup.
func BackupPauses(b *carav1.Backup) bool { return b.Pause == nil || b.GetPause() }

// HookTimeout returns how long the command of a hook may take.
func HookTimeout(h *carav1.BackupHook) time.Duration {
	d, err := syntax.ParseDuration(h.GetTimeout(), 0)
	if err != nil {
		return DefaultHookTimeout
	}
	return cmp.Or(d, DefaultHookTimeout)
}
