package agent_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/internal/test/testneed"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == volume.PipeCommand { // rsync has started the test as its helper
		if err := volume.Pipe(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		fmt.Fprintln(os.Stderr, confine.Exec(context.Background(), os.Args[2:], os.Environ())) //nolint:forbidigo // it is the main of a process
		os.Exit(1)
	}
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testneed.AtOnce(3) // the tests with a real engine mostly wait
	goleak.VerifyTestMain(m)
}
