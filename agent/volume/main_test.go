package volume

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/agent/confine"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == PipeCommand { // rsync has started the test as its helper
		if err := Pipe(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		fmt.Fprintln(os.Stderr, confine.Exec(context.Background(), os.Args[2:], os.Environ())) //nolint:forbidigo // it is the main of a process
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
