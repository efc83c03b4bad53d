package api

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// BasicAuthUsers is the key of a Secret of type basicAuth: lines of a htpasswd file.
const BasicAuthUsers = "users"

// Limits of a Secret of type basicAuth. The cost is the logarithm of the work for one check of a password.
const (
	maxUsers      = 1000
	maxUserName   = 255
	minBcryptCost = 4
	maxBcryptCost = 14
)

// bcryptHash is a hash as htpasswd -B and others write it: version, cost, salt and hash.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// ParseUsers returns the password hashes of a htpasswd file by user name. Empty lines and lines that begin with # are ignored.
// Errors name the line, and contain no part of the text.
func ParseUsers(text []byte) (map[string]string, error) {
	users := map[string]string{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, found := strings.Cut(line, ":")
		if problem := userProblem(name, hash, found); problem != "" {
			return nil, fmt.Errorf("line %d %s", number, problem)
		}
		if _, twice := users[name]; twice {
			return nil, fmt.Errorf("line %d has the same user name as a line before it; remove one of them", number)
		}
		if users[name] = hash; len(users) > maxUsers {
			return nil, fmt.Errorf("it has more than %d users; divide them among several Secrets", maxUsers)
		}
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("it has no user; add a line, for example with htpasswd -nB NAME")
	}
	return users, nil
}

func userProblem(name, hash string, found bool) string {
	cost := bcryptHash.FindStringSubmatch(hash)
	switch {
	case !found:
		return "has no colon; write NAME:HASH"
	case name == "" || len(name) > maxUserName || strings.ContainsFunc(name, isControl):
		return fmt.Sprintf("has an invalid user name; it must have 1 to %d bytes and no control characters", maxUserName)
	case cost == nil:
		return "has no bcrypt hash; make one with htpasswd -nB NAME"
	}
	if n, _ := strconv.Atoi(cost[1]); n < minBcryptCost || n > maxBcryptCost {
		return fmt.Sprintf("has the bcrypt cost %d; it must be between %d and %d", n, minBcryptCost, maxBcryptCost)
	}
	return ""
}
