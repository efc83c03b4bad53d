package git

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/sources"
)

// credentials are the values of a source's Secret.
type credentials struct {
	user, password string
	sshKey         []byte
	sshPassphrase  []byte
	knownHosts     []byte // the lines that can be parsed
	badLines       []int  // line numbers in known_hosts
	ca             []byte
	id             string   // hash of all values; sources with equal ids may share a result
	secrets        []string // what must never be displayed
}

// readCredentials selects what the scheme needs. It returns an error that names what is missing.
func readCredentials(a address, secret map[string][]byte, insecure bool) (credentials, error) {
	c := credentials{
		user: trimmed(secret["username"]), password: trimmed(secret["password"]),
		sshKey: secret["ssh-privatekey"], sshPassphrase: secret["ssh-passphrase"],
		knownHosts: secret["known_hosts"], ca: secret["ca.crt"],
	}
	if token := trimmed(secret["token"]); token != "" {
		c.password = token
		c.user = cmp.Or(c.user, "x-access-token") // GitHub wants this name with app tokens; other servers accept any
	}
	c.id = sources.SecretID(secret)
	c.secrets = spellings(trimmed(secret["username"]), c.user, c.password, trimmed(c.sshPassphrase), trimmed(c.sshKey))
	if a.scheme == "http" && c.password != "" && !insecure {
		return credentials{}, sources.Human(api.ReasonInsecureTransport,
			"the Secret's password would be sent over http://, where everybody on the way can read it; use https://, or set spec.git.insecure: true if that is meant")
	}
	if len(c.ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.ca) {
		return credentials{}, sources.Human(api.ReasonInvalidSpec, "the Secret's ca.crt holds no PEM certificate")
	}
	if a.scheme == "ssh" {
		return c, c.checkSSH()
	}
	return c, nil
}

func (c credentials) checkSSH() error {
	switch {
	case len(c.knownHosts) == 0:
		return sources.Human(api.ReasonHostKeyRefused,
			"ssh needs the server's host key: add `known_hosts` (from `ssh-keyscan HOST`, checked) to the Secret that spec.git.secretRef names")
	case len(c.sshKey) == 0 && c.password == "":
		return sources.Human(api.ReasonAuthFailed,
			"ssh needs a key: add `ssh-privatekey` to the Secret that spec.git.secretRef names")
	}
	return nil
}

func trimmed(b []byte) string { return strings.TrimSpace(string(b)) }

// spellings lists what must never be displayed, longest first: every value as it is, URL-encoded, and base64-encoded as in a
// header; each line of a key.
func spellings(name, user, password, passphrase, key string) []string {
	var all []string
	values := []string{name, password, passphrase}
	for line := range strings.Lines(key) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			values = append(values, line)
		}
	}
	for _, s := range values {
		if s != "" {
			all = append(all, s, url.QueryEscape(s), url.PathEscape(s), strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), base64.StdEncoding.EncodeToString([]byte(s)))
		}
	}
	if password != "" { // user is name or its default
		all = append(all, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// redact replaces every credential with a mark. A short one is replaced only as a whole word, since it may be part of other
// words: a user is often called git.
func (c credentials) redact(said string) string {
	const mark, short = "<redacted>", 8
	for _, s := range c.secrets {
		if len(s) >= short {
			said = strings.ReplaceAll(said, s, mark)
			continue
		}
		var b strings.Builder
		for {
			i := strings.Index(said, s)
			if i < 0 {
				break
			}
			end := i + len(s)
			if i > 0 && isWord(said[i-1]) && isWord(s[0]) || end < len(said) && isWord(said[end]) && isWord(s[len(s)-1]) {
				b.WriteString(said[:i+1])
				said = said[i+1:]
				continue
			}
			b.WriteString(said[:i] + mark)
			said = said[end:]
		}
		said = b.String() + said
	}
	return said
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80
}

// scrub makes a server's or library's message safe to display: one line, limited in length, without credentials.
func (c credentials) scrub(said string) string {
	said = c.redact(said)
	said = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, said)
	return text.Clip(strings.Join(strings.Fields(said), " "), 300)
}
