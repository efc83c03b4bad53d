package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

func TestMain(m *testing.M) {
	testneed.AtOnce(3) // they mostly wait
	code := m.Run()
	if err := dropSeconds(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if programs.dir != "" {
		if err := os.RemoveAll(programs.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// programs are built once, by the first test that needs them.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func built(t *testing.T) string {
	t.Helper()
	testneed.NotShort(t)
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "cara-e2e-"); programs.err == nil { //nolint:usetesting // it outlives the test
			programs.err = testcluster.Build(context.Background(), programs.dir) //nolint:usetesting // so does the build
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

// pools are the parts of the network pool that tests on one engine do not share: 10.213.N.0/20 each. Where the first one
// is, is another matter in each process, so that two runs on one engine seldom share one.
var pools = func() chan string {
	free := make(chan string, 15)
	for n := range cap(free) {
		free <- fmt.Sprintf("10.213.%d.0/20", 16*((os.Getpid()+n)%cap(free)+1))
	}
	return free
}()
