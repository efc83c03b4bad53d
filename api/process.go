package api

import (
	"fmt"
	"strings"
	"unicode/utf8"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// What Linux gives a process: one word (an argument, or NAME=value) has at most 32 pages with its NUL at the end, and
// all words share a part of the stack. A container with more is made, and fails at each start.
const (
	// MaxWord bounds one word, in bytes.
	MaxWord = 32*4096 - 1
	// MaxWords bounds the environment, command and arguments of a service together, in bytes. The image's own variables
	// come on top, so it is less than the 2 MiB of a usual stack.
	MaxWords = 1 << 20
)

// EnvProblem says why no process can get a variable with this value; empty if it can. It has no part of the value.
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

// WordsProblem says why a service's words are too many, with the bytes of values that come from Secrets; empty if they
// are not.
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

// words checks what a container's process gets.
func (e serviceErrors) words(at string, s *carav1.Service) {
	for field, words := range map[string][]string{".command": s.GetCommand(), ".args": s.GetArgs(), ".healthcheck.exec.command": s.GetHealthcheck().GetExec().GetCommand()} {
		for i, w := range words {
			e.word(elem(at+field, i), w)
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
