package git

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// usableLines returns known_hosts without the lines that cannot be parsed, and the numbers of those lines. Like ssh, it
// skips them, because each may be about another host.
func usableLines(data []byte) (usable []byte, bad []int) {
	if _, err := readKnownHosts(data); err == nil {
		return data, nil
	}
	var good [][]byte
	for i, line := range bytes.Split(data, []byte("\n")) {
		if _, err := readKnownHosts(line); err != nil {
			bad = append(bad, i+1)
			continue
		}
		good = append(good, line)
	}
	return bytes.Join(good, []byte("\n")), bad
}

// readKnownHosts parses known_hosts. The library reads only files, so a temporary file exists during the call.
func readKnownHosts(data []byte) (ssh.HostKeyCallback, error) {
	f, err := os.CreateTemp("", "known_hosts-*")
	if err != nil {
		return nil, fmt.Errorf("keep known_hosts: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // public keys; at worst the file stays in the temporary directory
	defer f.Close()
	if _, err := f.Write(append(bytes.Clone(data), '\n')); err != nil {
		return nil, fmt.Errorf("keep known_hosts: %w", err)
	}
	check, err := knownhosts.New(f.Name())
	if err != nil {
		return nil, sources.Human(api.ReasonHostKeyRefused, "the Secret's `known_hosts` cannot be read: one `HOST ALGORITHM KEY` a line, as `ssh-keyscan` prints")
	}
	return check, nil
}

// badLines returns the warning about skipped lines of known_hosts.
func badLines(secret string, bad []int) []*carav1.FileProblem {
	if len(bad) == 0 {
		return nil
	}
	return []*carav1.FileProblem{{
		File: fmt.Sprintf("known_hosts of Secret %s", secret), Line: int32(bad[0]),
		Message: "skipped, because it is not `HOST ALGORITHM KEY` as `ssh-keyscan` prints it: " + lineNumbers(bad),
	}}
}

func lineNumbers(bad []int) string {
	const named = 10
	var numbers []string
	for _, n := range bad[:min(named, len(bad))] {
		numbers = append(numbers, strconv.Itoa(n))
	}
	trimmed := "line " + strings.Join(numbers, ", ")
	if len(bad) > named {
		trimmed += fmt.Sprintf(" and %d more", len(bad)-named)
	}
	return trimmed
}
