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
	lines := lineJoiner{emit: emit}
	var header [8]byte
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			return frames, lines.finish(whole)
		} else if err != nil {
			return frames, err
		}
		frames++
		size := int(binary.BigEndian.Uint32(header[4:]))
		text, ended, err := readText(in, int64(size))
		if err != nil {
			return frames, err
		}
		stream := int(header[0]) % len(lines.open)
		line, stamp := parseLine(text, stream == int(stdcopy.Stderr))
		if err := lines.add(stream, line, size-stamp, ended); err != nil {
			return frames, err
		}
	}
}

// lineJoiner makes lines of frames.
type lineJoiner struct {
	emit func(engine.LogLine) error
	open [3]*engine.LogLine // by stream: the line that is not complete
}

// add takes a frame. size is the length of its text with the newline, which it has if it ended.
func (j *lineJoiner) add(stream int, line engine.LogLine, size int, ended bool) error {
	if before := j.open[stream]; before != nil && before.Time.Equal(line.Time) && !line.Time.IsZero() {
		if before.Size += size; !ended {
			return nil
		}
		before.Size--
		return j.end(stream)
	}
	if err := j.end(stream); err != nil {
		return err
	}
	if !ended && size >= maxLine {
		line.Size, j.open[stream] = size, &line
		return nil
	}
	if ended {
		size--
	}
	if size > maxLine {
		line.Size = size
	}
	return j.emit(line)
}

// end emits the incomplete line of a stream, if there is one.
func (j *lineJoiner) end(stream int) error {
	line := j.open[stream]
	j.open[stream] = nil
	if line == nil {
		return nil
	}
	if line.Size <= maxLine {
		line.Size = 0 // not cut: only its newline came later
	}
	return j.emit(*line)
}

// finish emits the lines that are incomplete at the end of the log, unless only whole lines are wanted.
func (j *lineJoiner) finish(whole bool) error {
	for stream := range j.open {
		if whole {
			return nil
		}
		if err := j.end(stream); err != nil {
			return err
		}
	}
	return nil
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
