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

// maxLine is where a line of a log is cut.
const maxLine = 16 << 10

// readFrames reads a container's log as the engine frames it: a header of eight bytes (stream, length), then a time
// stamp, a space and a line. A line of more than 16 KiB comes in several frames with one time stamp, of which only the last ends in a newline.
// The last line of a run may have no newline either; what follows it has another time stamp. With whole, a last line that may go on is left out.
func readFrames(r io.Reader, whole bool, emit func(engine.LogLine) error) (frames int, err error) {
	in := bufio.NewReaderSize(r, 32<<10)
	var open [3]*engine.LogLine // by stream: the line whose end has not come
	end := func(stream int) error {
		line := open[stream]
		open[stream] = nil
		if line == nil {
			return nil
		}
		if line.Size <= maxLine {
			line.Size = 0 // it was not cut: only its newline came later
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

// maxFrame bounds what is kept of one frame: a time stamp and a line, with room for the newline.
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

// parseLine also returns how many bytes before the line are the time stamp.
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
