package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
)

func frame(stream byte, text string) []byte {
	header := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return append(header, text...)
}

func TestReadFrames(t *testing.T) {
	const stamp, later = "2026-01-02T03:04:05.000000006Z ", "2026-01-02T03:04:05.000000007Z "
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		frames [][]byte
		want   []engine.LogLine
	}{
		"two outputs": {
			[][]byte{frame(1, stamp+"out\n"), frame(2, stamp+"err\r\n")},
			[]engine.LogLine{{Time: at, Text: "out"}, {Time: at, Text: "err", Stderr: true}},
		},
		"a long line is cut, and says how long it is": {
			[][]byte{frame(1, stamp+long), frame(2, stamp+"between\n"), frame(1, stamp+long), frame(1, stamp+"the rest\n"), frame(1, later+"next\n")},
			[]engine.LogLine{{Time: at, Text: "between", Stderr: true}, {Time: at, Text: long, Size: 2*maxLine + 8}, {Time: at.Add(1), Text: "next"}},
		},
		"a line that just fits is not cut": {
			[][]byte{frame(1, stamp+long), frame(1, stamp+"\n"), frame(1, later+"next\n")},
			[]engine.LogLine{{Time: at, Text: long}, {Time: at.Add(1), Text: "next"}},
		},
		"a run that ends without a newline": {
			[][]byte{frame(1, stamp+long[:9000]), frame(1, later+"the next run\n")},
			[]engine.LogLine{{Time: at, Text: long[:9000]}, {Time: at.Add(1), Text: "the next run"}},
		},
		"a run that ends in the middle of a long line": {
			[][]byte{frame(1, stamp+long), frame(1, later+"the next run\n"), frame(1, later+"without newline")},
			[]engine.LogLine{{Time: at, Text: long}, {Time: at.Add(1), Text: "the next run"}, {Time: at.Add(1), Text: "without newline"}},
		},
		"a frame that is far too long": {
			[][]byte{frame(1, stamp+strings.Repeat("y", 10*maxLine)+"\n"), frame(2, stamp+"next\n")},
			[]engine.LogLine{{Time: at, Text: strings.Repeat("y", maxLine), Size: 10 * maxLine}, {Time: at, Text: "next", Stderr: true}},
		},
		"no stamp, no text": {
			[][]byte{frame(1, "word\n"), frame(1, "")}, []engine.LogLine{{Text: "word"}, {}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []engine.LogLine
			_, err := readFrames(bytes.NewReader(bytes.Join(c.frames, nil)), false, func(l engine.LogLine) error {
				got = append(got, l)
				return nil
			})
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("error %v, lines (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestErrorsMean(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"manifest unknown": {"manifest for x:1 not found: manifest unknown: manifest unknown", engine.ErrInvalid},
		"denied":           {"pull access denied for x, repository does not exist or may require 'docker login'", engine.ErrInvalid},
		"429":              {"toomanyrequests: You have reached your pull rate limit", engine.ErrRegistry},
		"429 as a status":  {"received unexpected HTTP status: 429 Too Many Requests", engine.ErrRegistry},
		"500":              {"received unexpected HTTP status: 500 Internal Server Error", engine.ErrRegistry},
		"refused":          {"Get \"https://r/v2/\": dial tcp 1.2.3.4:443: connect: connection refused", engine.ErrRegistry},
		"no name":          {"Get \"https://r/v2/\": dial tcp: lookup r: no such host", engine.ErrRegistry},
		"platform":         {"no matching manifest for linux/amd64 in the manifest list entries", engine.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if err := pullError("x:1", errors.New(c.text)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
