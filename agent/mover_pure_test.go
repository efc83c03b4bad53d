package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
)

// TestMoveResult: what a retry mends has no result while the project runs, and ends the step while it is stopped.
func TestMoveResult(t *testing.T) {
	broken := errors.New("the connection broke")
	for name, tt := range map[string]struct {
		step         string
		err          error
		result, says string
	}{
		"copied":                    {api.MoveCopying, nil, api.MoveCopied, ""},
		"verified":                  {api.MoveSwitching, nil, api.MoveVerified, ""},
		"broken while it runs":      {api.MoveCopying, broken, "", "the connection broke"},
		"broken while it stands":    {api.MoveSwitching, broken, api.MoveInterrupted, "the connection broke"},
		"permanent while it runs":   {api.MoveCopying, volume.Final(broken), api.MoveFailed, "the connection broke"},
		"permanent while it stands": {api.MoveSwitching, volume.Final(broken), api.MoveFailed, "the connection broke"},
	} {
		if result, says := moveResult(tt.step, tt.err); result != tt.result || says != tt.says {
			t.Errorf("%s: %q %q", name, result, says)
		}
	}
}

// TestFailuresOfRsyncEndAMove: each one says how many are left, and the last one is final.
func TestFailuresOfRsyncEndAMove(t *testing.T) {
	m, job, partial := &mover{}, &moveJob{}, errors.New("rsync ended with exit code 23")
	for n := 1; n <= maxCopyFailures; n++ {
		err := m.failed(job, partial)
		want := map[bool]string{false: "of 5)", true: "(5 attempts failed)"}[n == maxCopyFailures]
		if !errors.Is(err, partial) || volume.IsFinal(err) != (n == maxCopyFailures) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("failure %d: %v", n, err)
		}
	}
}
