package api

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
)

// joinVersion begins every join token.
const joinVersion = "CARA1"

// JoinToken lets an agent join the cluster: `CARA1.<hex sha256 of the CA certificate's DER>.<id>.<secret>`. The agent
// verifies the CA with CAHash before it sends the secret.
type JoinToken struct {
	// CAHash is the SHA-256 of the CA certificate in DER, as 64 hexadecimal digits in lower case.
	CAHash string
	// ID is the name of the token on the server.
	ID string
	// Secret authenticates the agent. It is never logged.
	Secret string
}

// String returns the whole token including the secret, for the token file.
func (t JoinToken) String() string {
	return strings.Join([]string{joinVersion, t.CAHash, t.ID, t.Secret}, ".")
}

// LogValue keeps the secret out of logs.
func (t JoinToken) LogValue() slog.Value {
	return slog.StringValue(strings.Join([]string{joinVersion, t.CAHash, t.ID, "<redacted>"}, "."))
}

// ParseJoinToken parses a token, with or without surrounding white space. Its errors never contain the token.
func ParseJoinToken(s string) (JoinToken, error) {
	s = strings.TrimSpace(s)
	if len(s) > 1024 {
		return JoinToken{}, errors.New("join token: longer than 1024 characters; check that the file holds the token and nothing else")
	}
	parts := strings.Split(s, ".")
	if len(parts) != 4 || parts[0] != joinVersion {
		return JoinToken{}, errors.New("join token: not of the form CARA1.<hash>.<id>.<secret>; copy the whole token that the server wrote")
	}
	t := JoinToken{CAHash: strings.ToLower(parts[1]), ID: parts[2], Secret: parts[3]}
	if raw, err := hex.DecodeString(t.CAHash); err != nil || len(raw) != 32 {
		return JoinToken{}, errors.New("join token: the second part is not a SHA-256 in hexadecimal; copy the whole token that the server wrote")
	}
	for _, part := range parts[2:] {
		if part == "" || strings.Trim(part, wordCharacters) != "" {
			return JoinToken{}, errors.New("join token: id and secret must be letters, digits, - and _; copy the whole token that the server wrote")
		}
	}
	return t, nil
}

// wordCharacters are letters, digits, - and _.
const wordCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
