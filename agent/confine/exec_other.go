//go:build !linux

package confine

import (
	"context"
	"errors"
	"os/exec"
)

// Wrap changes nothing: only Linux can confine a program.
func Wrap(*exec.Cmd, Access) error { return nil }

// Exec is the hidden command, which only Linux has.
func Exec(context.Context, []string, []string) error { return errors.New("this command needs Linux") }

// Problem returns why this machine cannot confine programs.
func Problem() string { return "only Linux can confine programs" }
