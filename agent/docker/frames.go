package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/pkg/stdcopy"

	"github.com/caravanserai/cara/agent/engine"
)

// maxLine is the maximum length of a log line; the rest is cut off.
const maxLine = 16 << 10

// readFrames reads a container's log in the engine's framing: a header of eight bytes (stream, length), then a timestamp, a
// space and a line. A line longer than 16 KiB arrives in several frames with the same timestamp, and only the last one ends
// with a newline. The last line of a run may also lack the newline; the next line then has another timestamp. If whole is
// true, a last line that may continue is omitted.
func readFrames(r io.Reader, whole bool, emit func(engine.LogLine) error) (frames int, err error) {
	in := bufio.NewReaderSize(r, 32<<10)
	var open [3]*engine.LogLine // by stream: the line that is not complete
	end := func(stream int) error {
		line := open[stream]
		open[stream] = nil
		if line == nil {
			return nil
		}
		if line.Size <= maxLine {
			line.Size = 0 // not cut: only its newline came later
		}
		return emit(*line)
	}
	var header [8]byte
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			for stream := range open {
				if whole && open[stream] != nil {
					continue
				}
				if err := end(stream); err != nil {
					return frames, err
				}
			}
			return frames, nil
		} else if err != nil {
			return frames, err
		}
		frames++
		size := int(binary.BigEndian.Uint32(header[4:]))
		text, ended, err := readText(in, int64(size))
		if err != nil {
			return frames, err
		}
		stream := int(header[0]) % len(open)
		line, stamp := parseLine(text, stream == int(stdcopy.Stderr))
		size -= stamp
		if before := open[stream]; before != nil && before.Time.Equal(line.Time) && !line.Time.IsZero() {
			if before.Size += size; ended {
				before.Size--
				err = end(stream)
			}
			if err != nil {
				return frames, err
			}
			continue
		}
		if err := end(stream); err != nil {
			return frames, err
		}
		if !ended && size >= maxLine {
			line.Size, open[stream] = size, &line
			continue
		}
		if ended {
			size--
		}
		if size > maxLine {
			line.Size = size
		}
		if err := emit(line); err != nil {
			return frames, err
		}
	}
}

// maxFrame is how much of one frame is kept: a timestamp, a line and a newline.
const maxFrame = maxLine + 128

func readText(in *bufio.Reader, size int64) (text string, ended bool, err error) {
	buf := make([]byte, min(size, maxFrame))
	if _, err := io.ReadFull(in, buf); err != nil {
		return "", false, err
	}
	if rest := size - int64(len(buf)); rest > 0 {
		if _, err := io.CopyN(io.Discard, in, rest-1); err != nil {
			return "", false, err
		}
		end, err := in.ReadByte()
		return string(buf), end == '\n', err
	}
	return string(buf), bytes.HasSuffix(buf, []byte("\n")), nil
}

// parseLine also returns the length of the timestamp before the line.
func parseLine(text string, stderr bool) (line engine.LogLine, stamped int) {
	line = engine.LogLine{Stderr: stderr}
	if stamp, rest, ok := strings.Cut(text, " "); ok {
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			line.Time, text, stamped = t, rest, len(stamp)+1
		}
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	line.Text = strings.ToValidUTF8(text, "\uFFFD")
	return line, stamped
}
