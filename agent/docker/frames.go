package docker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/pkg/stdcopy"

	"github.com/caravanserai/cara/agent"
)

// maxLine is where a line of a log is cut.
const maxLine = 16 << 10

// readFrames reads a container's log as the engine frames it: a header of eight bytes (stream, length), then a time
// stamp, a space and a line. A line of more than 16 KiB comes in several frames of which only the last ends in a
// newline: what follows the first of them is left out.
func readFrames(r io.Reader, emit func(agent.LogLine) error) error {
	in := bufio.NewReaderSize(r, 32<<10)
	var open [3]bool // by stream: the last frame did not end its line
	var header [8]byte
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(header[4:]))
		text, err := readText(in, size)
		if err != nil {
			return err
		}
		stream := int(header[0]) % len(open)
		continued := open[stream]
		open[stream] = !strings.HasSuffix(text, "\n") && size > maxLine/2
		if continued {
			continue
		}
		if err := emit(parseLine(text, stream == int(stdcopy.Stderr))); err != nil {
			return err
		}
	}
}

// maxFrame bounds what is kept of one frame: a time stamp and a line, with room for the newline.
const maxFrame = maxLine + 128

func readText(in *bufio.Reader, size int64) (string, error) {
	kept := min(size, maxFrame)
	buf := make([]byte, kept)
	if _, err := io.ReadFull(in, buf); err != nil {
		return "", err
	}
	if _, err := io.CopyN(io.Discard, in, size-kept); err != nil {
		return "", err
	}
	return string(buf), nil
}

func parseLine(text string, stderr bool) agent.LogLine {
	line := agent.LogLine{Stderr: stderr}
	if stamp, rest, ok := strings.Cut(text, " "); ok {
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			line.Time, text = t, rest
		}
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	line.Text = strings.ToValidUTF8(text, "\uFFFD")
	return line
}
