package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
)

// Failure explains why a backup failed. Message may contain values of Secrets, because restic's output may: the caller removes
// them.
type Failure struct {
	Reason  api.Reason
	Message string
}

// Error implements error.
func (f *Failure) Error() string { return f.Message }

func fail(reason api.Reason, format string, args ...any) *Failure {
	return &Failure{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// outcome is how restic ended.
type outcome struct {
	code   int // -1 if it was stopped
	stdout []byte
	stderr string
}

// Exit codes of restic 0.14.
const exitIncomplete = 3 // some files could not be read

// reasonMissing is for a location without a repository. It never leaves this package: a repository is made there.
const reasonMissing api.Reason = "missing"

// symptoms maps what restic, ssh and storage servers print to what it means. The first match counts: a server that cannot be
// reached also causes the question whether there is a repository.
func symptoms() []struct {
	reason api.Reason
	advice string
	texts  []string
} {
	return []struct {
		reason api.Reason
		advice string
		texts  []string
	}{
		{api.ReasonWrongPassword, "the password is wrong for this repository: correct the key password of the Secret, or use another repository", []string{
			"wrong password or no key found",
		}},
		{api.ReasonRepositoryFull, "the repository is full: make room there, or keep fewer snapshots with spec.backup.keep", []string{
			"no space left on device", "disk quota exceeded", "QuotaExceeded", "StorageFull", "Insufficient Storage", "InsufficientStorage", "file too large",
		}},
		{api.ReasonRepositoryLocked, "the repository is locked by another program: wait for its end; if none uses the repository, run restic unlock", []string{
			"repository is already locked",
		}},
		{api.ReasonRepositoryDenied, "the repository refuses access: correct the credentials in the Secret, and check what they may do; for a directory of the node, check its owner and mode", []string{
			"Permission denied (publickey", "Host key verification failed", "Access Denied", "AccessDenied", "SignatureDoesNotMatch", "request signature", "InvalidAccessKeyId", "Access Key Id",
			"Load key", "401 Unauthorized", "403 Forbidden", "permission denied",
		}},
		{api.ReasonRepositoryUnreachable, "the repository cannot be reached: check its address and the network of this node", []string{
			"connection refused", "no such host", "i/o timeout", "no route to host", "network is unreachable", "Could not resolve hostname",
			"Connection timed out", "Connection closed by", "kex_exchange_identification", "TLS handshake timeout", "connection reset", "context deadline exceeded",
			"certificate",
		}},
		{api.ReasonRepositoryCorrupted, "the repository is damaged: run restic check with it, and restic rebuild-index or a new repository as it advises", []string{
			"ciphertext verification failed", "invalid data returned", "hash does not match", "does not match id", "repository contains errors", "Pack ID does not match",
			"not found in repository", "not found in index", "unexpected EOF", "invalid character", "wrong data returned", "config or key", "config cannot be loaded",
			"errors were found",
		}},
		{reasonMissing, "there is no repository", []string{
			"Is there a repository at the following location", "unable to open config file",
		}},
	}
}

// judge returns why a run of restic failed, or nil if it did not. doing says what it did, such as "copying volume db".
func judge(doing string, o outcome) *Failure {
	if o.code == 0 {
		return nil
	}
	if o.code == exitIncomplete {
		return fail(api.ReasonVolumeUnreadable, "%s: some files could not be read, so the snapshot is not complete: check the node's disk and the agent's rights (restic: %s)",
			doing, lastLine(o.stderr))
	}
	for _, s := range symptoms() {
		if slices.ContainsFunc(s.texts, func(text string) bool { return strings.Contains(o.stderr, text) }) {
			return fail(s.reason, "%s: %s (restic: %s)", doing, s.advice, lastLine(o.stderr))
		}
	}
	if o.code < 0 {
		return fail(api.ReasonBackupFailed, "%s: restic was stopped (restic: %s)", doing, lastLine(o.stderr))
	}
	return fail(api.ReasonBackupFailed, "%s: restic ended with code %d: %s", doing, o.code, lastLine(o.stderr))
}

// maxLine limits what is quoted of restic's output.
const maxLine = 500

// lastLine returns the last line that says something.
func lastLine(stderr string) string {
	lines := strings.FieldsFunc(stderr, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "Is there a repository") && !strings.HasPrefix(line, "/") {
			return line[:min(len(line), maxLine)]
		}
	}
	return "it said nothing"
}

// summary is the last message of restic backup --json.
type summary struct {
	Type     string `json:"message_type"`
	Snapshot string `json:"snapshot_id"`
	Bytes    int64  `json:"total_bytes_processed"`
	Added    int64  `json:"data_added"`
}

// parseSummary finds the summary in the output of restic backup --json.
func parseSummary(stdout []byte) (summary, bool) {
	lines := bufio.NewScanner(bytes.NewReader(stdout))
	lines.Buffer(nil, maxOutput)
	for lines.Scan() {
		var s summary
		if json.Unmarshal(lines.Bytes(), &s) == nil && s.Type == "summary" && isID(s.Snapshot) {
			return s, true
		}
	}
	return summary{}, false
}

// parseIDs returns the ids in the output of restic snapshots --json.
func parseIDs(stdout []byte) ([]string, error) {
	list, err := parseListed(stdout)
	var ids []string
	for _, l := range list {
		ids = append(ids, l.ID)
	}
	return ids, err
}

// isID reports whether a text is an id of restic, long or short. Others would become arguments.
func isID(s string) bool {
	return len(s) >= 8 && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}
