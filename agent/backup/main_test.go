package backup

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/caravanserai/cara/agent/confine"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		fmt.Fprintln(os.Stderr, confine.Exec(context.Background(), os.Args[2:], os.Environ())) //nolint:forbidigo // it is the main of a process
		os.Exit(1)
	}
	os.Exit(m.Run())
}
