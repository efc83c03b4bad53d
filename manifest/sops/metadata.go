package sops

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// block is the name of the map that SOPS adds to each document.
const block = "sops"

// metadata is SOPS' description of an encrypted file.
type metadata struct {
	Age               []recipient `yaml:"age"`
	KeyGroups         []any       `yaml:"key_groups"`
	ShamirThreshold   int         `yaml:"shamir_threshold"`
	KMS               []any       `yaml:"kms"`
	PGP               []any       `yaml:"pgp"`
	LastModified      string      `yaml:"lastmodified"`
	MAC               string      `yaml:"mac"`
	UnencryptedSuffix string      `yaml:"unencrypted_suffix"`
	EncryptedSuffix   string      `yaml:"encrypted_suffix"`
	UnencryptedRegex  string      `yaml:"unencrypted_regex"`
	EncryptedRegex    string      `yaml:"encrypted_regex"`
	UnencryptedNote   string      `yaml:"unencrypted_comment_regex"`
	EncryptedNote     string      `yaml:"encrypted_comment_regex"`
	MACOnlyEncrypted  bool        `yaml:"mac_only_encrypted"`

	unencrypted, encrypted *regexp.Regexp
}

type recipient struct {
	Recipient string `yaml:"recipient"`
	Enc       string `yaml:"enc"`
}

// Find returns the sops block of a document, or nil.
func Find(root *yaml.Node) *yaml.Node {
	if root == nil || root.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == block {
			return root.Content[i+1]
		}
	}
	return nil
}

// read reads the metadata of a file, and refuses what this package does not decrypt.
func read(n *yaml.Node) (m metadata, err error) {
	if hasAlias(n) || n.Kind != yaml.MappingNode || n.Decode(&m) != nil { // the decoder's error may quote a value
		return m, errors.New("the sops block is not as sops writes it; encrypt the file again")
	}
	switch {
	case len(m.KeyGroups) > 0 || m.ShamirThreshold > 0:
		return m, errors.New("it is encrypted with key groups (Shamir's secret sharing), which Cara does not decrypt; use one group with age recipients")
	case len(m.Age) == 0 && (len(m.KMS) > 0 || len(m.PGP) > 0):
		return m, errors.New("it is not encrypted for age; Cara decrypts with age keys only: add an age recipient to .sops.yaml and run `sops updatekeys`")
	case len(m.Age) == 0:
		return m, errors.New("it has no age recipient; Cara decrypts with age keys only: add one to .sops.yaml and run `sops updatekeys`")
	case len(m.Age) > maxRecipients:
		return m, fmt.Errorf("it has %d age recipients, at most %d are allowed", len(m.Age), maxRecipients)
	case m.UnencryptedNote != "" || m.EncryptedNote != "":
		return m, errors.New("comments select what is encrypted, which Cara does not support; use encrypted_regex or encrypted_suffix")
	case m.MAC == "":
		return m, errors.New("the sops block has no MAC; encrypt the file again")
	}
	if m.unencrypted, err = compile(m.UnencryptedRegex); err == nil {
		m.encrypted, err = compile(m.EncryptedRegex)
	}
	if err != nil {
		return m, errors.New("a regular expression in the sops block is not valid; encrypt the file again")
	}
	return m, nil
}

func compile(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	if len(pattern) > 1024 {
		return nil, errors.New("the pattern is too long")
	}
	return regexp.Compile(pattern)
}

// modified returns the time of the last change, with which the MAC is sealed.
func (m *metadata) modified() (string, error) {
	at, err := time.Parse(time.RFC3339, m.LastModified)
	if err != nil {
		return "", errors.New("the sops block has no valid lastmodified; encrypt the file again")
	}
	return at.Format(time.RFC3339), nil
}

// covers reports whether the value below these keys is encrypted. Later rules win, as in SOPS.
func (m *metadata) covers(path []string) bool {
	encrypted := true
	matches := func(match func(string) bool) bool { return slices.ContainsFunc(path, match) }
	suffix := func(end string) func(string) bool {
		return func(key string) bool { return strings.HasSuffix(key, end) }
	}
	if m.UnencryptedSuffix != "" && matches(suffix(m.UnencryptedSuffix)) {
		encrypted = false
	}
	if m.EncryptedSuffix != "" {
		encrypted = matches(suffix(m.EncryptedSuffix))
	}
	if m.unencrypted != nil && matches(m.unencrypted.MatchString) {
		encrypted = false
	}
	if m.encrypted != nil {
		encrypted = matches(m.encrypted.MatchString)
	}
	return encrypted
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// Error is why a file cannot be decrypted, with the place.
type Error struct {
	Line, Column int
	Message      string
}

func (e *Error) Error() string { return e.Message }

func at(n *yaml.Node, err error) *Error {
	return &Error{Line: cmp.Or(n.Line, 1), Column: cmp.Or(n.Column, 1), Message: err.Error()}
}
