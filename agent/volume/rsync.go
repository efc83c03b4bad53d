package volume

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// stall is how long rsync waits, on both sides, while nothing arrives.
const stall = "60"

// module is the name of the only module of the receiving rsync.
const module = "volume"

// sendArgs are the arguments of the sending rsync. It copies the content of a directory to the module. It starts the helper
// program to reach the other side.
func sendArgs(dir string, helper []string, checksum bool) []string {
	out := []string{
		"--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids", "--delete", "--modify-window=-1", "--timeout=" + stall,
		"--info=progress2", "--no-human-readable", "--outbuf=L",
	}
	if checksum {
		out = append(out, "--checksum")
	}
	return append(out, "--rsh="+shellWords(helper), "--", dir+"/", "node::"+module+"/")
}

// shellWords joins words for rsync's --rsh, which splits at spaces that are not quoted.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", "''") + "'"
	}
	return strings.Join(quoted, " ")
}

// receiveConfig returns the configuration of the receiving rsync: one module, in a chroot, for writing only. It accepts the
// options of sendArgs and refuses all others.
func receiveConfig(dir string) (string, error) {
	bad := func(r rune) bool { return r == '%' || r == '\\' || unicode.IsControl(r) }
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.ContainsFunc(dir, bad) || strings.TrimSpace(dir) != dir {
		return "", final("rsync cannot use the directory %q of the volume", dir)
	}
	return strings.Join([]string{
		"use chroot = yes", "uid = 0", "gid = 0", "reverse lookup = no", "log file = /dev/null", "max verbosity = 0",
		"[" + module + "]",
		"path = " + dir,
		"read only = no", "write only = yes", "list = no", "munge symlinks = no", "numeric ids = yes", "timeout = " + stall,
		"refuse options = * !archive !D !recursive !links !perms !times !group !owner !devices !specials !hard-links !acls !xattrs !sparse " +
			"!numeric-ids !delete !delete-during !checksum !timeout !modify-window",
		"",
	}, "\n"), nil
}

// exits of rsync, from its manual.
const (
	exitUsage      = 1
	exitProtocol   = 2 // the versions cannot work together
	exitAction     = 4 // an option is not supported
	exitSocket     = 10
	exitStream     = 12 // the connection broke, or the other side ended
	exitSignal     = 20
	exitPartial    = 23 // some files could not be copied
	exitVanished   = 24 // some files disappeared meanwhile
	exitTimeout    = 30
	exitConnection = 35 // no connection within the time-out
)

// Outcome judges how the sending rsync ended: with an exit code, and with messages in its error output. While the project
// runs, files may disappear.
func outcome(code int, messages string, running bool) error {
	switch {
	case code == 0, running && (code == exitVanished || code == exitPartial && onlyVanished(messages)):
		return nil
	case strings.Contains(messages, "No space left on device"), strings.Contains(messages, "Disk quota exceeded"):
		return errNoSpace
	case strings.Contains(messages, "Operation not supported") && code == exitPartial:
		return final("the file system there cannot store everything that the volume has: %s", firstLines(messages))
	case strings.Contains(messages, "Input/output error"), strings.Contains(messages, "Read-only file system"):
		return final("a disk cannot be read or written: %s", firstLines(messages))
	}
	err := fmt.Errorf("rsync ended with exit code %d: %s", code, firstLines(messages))
	switch code {
	case exitUsage, exitProtocol, exitAction:
		return Final(err)
	case exitSocket, exitStream, exitSignal, exitTimeout, exitConnection:
		return err
	}
	return copyError{err}
}

// onlyVanished reports whether all errors are about files of the original that disappeared. rsync ends with exitVanished if it
// does not find such a file, but with exitPartial if the file disappears before rsync has read its access control list or its
// extended attributes.
func onlyVanished(messages string) bool {
	for line := range strings.Lines(messages) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", isVanished(line), strings.HasPrefix(line, "rsync error: some files/attrs were not transferred"),
			line == "IO error encountered -- skipping file deletion":
		default:
			return false
		}
	}
	return true
}

// isVanished reports whether a message of rsync is about a file of the original that disappeared.
func isVanished(line string) bool {
	return strings.HasPrefix(line, "file has vanished: ") ||
		strings.HasPrefix(line, "rsync: [sender] ") && strings.HasSuffix(line, "No such file or directory (2)")
}

// errNoSpace means that the copy does not fit.
var errNoSpace = final("no space left on the disk with the engine's volumes")

// firstLines returns the first lines of rsync's messages as one line.
func firstLines(messages string) string {
	var out []string
	for line := range strings.Lines(messages) {
		if line = strings.TrimSpace(line); line != "" && len(out) < 3 {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		return "no message"
	}
	return strings.Join(out, "; ")
}

// Progress is how far a copy is.
type Progress struct {
	Bytes, TotalBytes int64
	Files, TotalFiles int64
}

// parseProgress reads a line of --info=progress2, such as `1234 56% 0.00kB/s 0:00:00 (xfr#1, to-chk=0/4)`. It returns the bytes
// that are done, and the entries that are done if the line says so.
func parseProgress(line []byte) (done, entries int64, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) < 2 || !bytes.HasSuffix(fields[1], []byte("%")) {
		return 0, 0, false
	}
	done, err := strconv.ParseInt(strings.ReplaceAll(string(fields[0]), ",", ""), 10, 64)
	if err != nil || done < 0 {
		return 0, 0, false
	}
	if _, check, found := bytes.Cut(line, []byte("-chk=")); found { // to-chk, or ir-chk while rsync still reads directories
		left, total, _ := strings.Cut(strings.TrimRight(string(check), ")\r\n "), "/")
		l, err1 := strconv.ParseInt(left, 10, 64)
		n, err2 := strconv.ParseInt(total, 10, 64)
		if err1 == nil && err2 == nil && 0 <= l && l <= n {
			entries = n - l
		}
	}
	return done, entries, true
}
