package git

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/caravanserai/cara/sources"
)

// credentials are the values of a source's Secret.
type credentials struct {
	user, password string
	sshKey         []byte
	sshPassphrase  []byte
	knownHosts     []byte
	ca             []byte
	id             string   // hash of them all: equal ids may share an answer
	secrets        []string // what must never be shown
}

// readCredentials picks what the scheme needs, and says what is missing.
func readCredentials(a address, secret map[string][]byte) (credentials, error) {
	c := credentials{
		user: text(secret["username"]), password: text(secret["password"]),
		sshKey: secret["ssh-privatekey"], sshPassphrase: secret["ssh-passphrase"],
		knownHosts: secret["known_hosts"], ca: secret["ca.crt"],
	}
	if token := text(secret["token"]); token != "" {
		c.password = token
		if c.user == "" {
			c.user = "x-access-token" // GitHub wants this name with app tokens; the others take any
		}
	}
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(secret)) {
		sum := sha256.Sum256(secret[key])
		h.Write([]byte(key + "="))
		h.Write(sum[:])
	}
	c.id = hex.EncodeToString(h.Sum(nil))
	for _, s := range []string{c.password, text(c.sshPassphrase)} {
		if s != "" {
			c.secrets = append(c.secrets, s, base64.StdEncoding.EncodeToString([]byte(c.user+":"+s)))
		}
	}
	if len(c.sshKey) > 0 {
		c.secrets = append(c.secrets, text(c.sshKey))
	}
	if len(c.ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.ca) {
		return credentials{}, sources.Human(sources.ReasonInvalidSpec, "the Secret's ca.crt holds no PEM certificate")
	}
	if a.scheme == "ssh" {
		return c, c.checkSSH()
	}
	return c, nil
}

func (c credentials) checkSSH() error {
	switch {
	case len(c.knownHosts) == 0:
		return sources.Human(sources.ReasonHostKey,
			"ssh needs the server's host key: add `known_hosts` (from `ssh-keyscan HOST`, checked) to the Secret that spec.git.secretRef names")
	case len(c.sshKey) == 0 && c.password == "":
		return sources.Human(sources.ReasonAuthFailed,
			"ssh needs a key: add `ssh-privatekey` to the Secret that spec.git.secretRef names")
	}
	return nil
}

func text(b []byte) string { return strings.TrimSpace(string(b)) }

// scrub makes what a server or library said fit to be shown: one line, bounded, and without any credential.
func (c credentials) scrub(said string) string {
	for _, s := range c.secrets {
		said = strings.ReplaceAll(said, s, "<redacted>")
	}
	said = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, said)
	said = strings.Join(strings.Fields(said), " ")
	if len(said) > 300 {
		said = strings.ToValidUTF8(said[:300], "") + "..."
	}
	return said
}
