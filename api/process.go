package api

import (
	"fmt"
	"strings"
	"unicode/utf8"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits of Linux for a new process: one string (an argument, or NAME=value) has at most 32 pages including its NUL, and
// all strings share a part of the stack. Docker would create a container with more, but it could not start.
const (
	// MaxWord limits one string, in bytes.
	MaxWord = 32*4096 - 1
	// MaxWords limits the environment, command and arguments of a service together, in bytes. The image adds its own
	// variables, so the limit is below the usual 2 MiB.
	MaxWords = 1 << 20
)

// EnvProblem returns why a variable cannot have this value, or "". The text never contains the value.
func EnvProblem(name string, value []byte) string {
	switch size := len(name) + len("=") + len(value); {
	case strings.IndexByte(string(value), 0) >= 0:
		return "contains a NUL byte, which no environment variable can hold; take it out"
	case !utf8.Valid(value):
		return "is not UTF-8, which an environment variable must be; encode it, or use a file"
	case size > MaxWord:
		return fmt.Sprintf("has %d bytes together with its name, at most %d are allowed; use a file", size, MaxWord)
	}
	return ""
}

// WordsProblem returns why a service's strings are too long together, or "". secrets is the number of bytes from Secrets.
func WordsProblem(s *carav1.Service, secrets int) string {
	size := secrets
	for _, v := range s.GetEnv() {
		size += len(v.GetName()) + len(v.GetValue()) + len("=\x00")
	}
	for _, words := range [][]string{s.GetCommand(), s.GetArgs()} {
		for _, w := range words {
			size += len(w) + len("\x00")
		}
	}
	if size > MaxWords {
		return fmt.Sprintf("the environment, command and arguments have %d bytes, at most %d are allowed together; use files", size, MaxWords)
	}
	return ""
}

// words validates the strings that a container's process gets.
func (e serviceErrors) words(at string, s *carav1.Service) {
	for field, words := range map[string][]string{".command": s.GetCommand(), ".args": s.GetArgs(), ".healthcheck.exec.command": s.GetHealthcheck().GetExec().GetCommand()} {
		for i, w := range words {
			e.word(Element(at+field, i), w)
		}
	}
	if bad := WordsProblem(s, 0); bad != "" {
		e.add(at+".env", "%s", bad)
	}
}

func (e serviceErrors) word(field, w string) {
	e.noNUL(field, w)
	if len(w) > MaxWord {
		e.add(field, "has %d bytes, at most %d are allowed; use a file", len(w), MaxWord)
	}
}
