package admission

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// frame returns a gRPC message of that size.
func frame(size int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), make([]byte, size)...)
}

// TestFramesHoldBack: a caller whose handler does not read is stopped, however small its pieces are.
func TestFramesHoldBack(t *testing.T) {
	tests := map[string]struct {
		message int
		reads   int // until it is stopped
	}{
		"small messages":    {10, readAheadLimit / pieceCost},
		"messages of 1 MiB": {1 << 20, readAheadLimit / pieceCost},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// each byte arrives separately
				f := newFrames(io.NopCloser(iotest.OneByteReader(bytes.NewReader(bytes.Repeat(frame(tt.message), 100)))), 0, 0, 0)
				reads := make(chan int, 10000)
				go func() {
					defer close(reads)
					for p := make([]byte, pieceCost); ; {
						n, err := f.Read(p)
						if err != nil {
							return
						}
						reads <- n
					}
				}()
				synctest.Wait()
				if len(reads) != tt.reads {
					t.Errorf("%d pieces were read ahead, want %d", len(reads), tt.reads)
				}
				f.change(func() { f.waiting = true }) // the handler waits for one message
				synctest.Wait()
				if f.ahead > max(readAheadLimit, int64(tt.message)+2*pieceCost) {
					t.Errorf("%d bytes are ahead", f.ahead)
				}
				_ = f.Close()
				for range reads {
				}
			})
		})
	}
}

func TestFramesKeepMessagesApart(t *testing.T) {
	body := append(append(frame(0), frame(20000)...), frame(3)...)
	f := newFrames(io.NopCloser(bytes.NewReader(body)), 0, 0, 0)
	var got []byte
	var sizes []int
	for p := make([]byte, pieceCost); ; {
		n, err := f.Read(p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, sizes = append(got, p[:n]...), append(sizes, n)
	}
	if !bytes.Equal(got, body) || len(sizes) != 4 || sizes[0] != 5 || sizes[1] != pieceCost || sizes[2] != 20005-pieceCost || sizes[3] != 8 {
		t.Errorf("pieces of %v bytes", sizes)
	}
	if len(f.whole) != 3 || f.whole[1] != 2*pieceCost {
		t.Errorf("messages cost %v", f.whole)
	}
}

func TestFramesBoundAMessage(t *testing.T) {
	f := newFrames(io.NopCloser(bytes.NewReader(frame(11))), 10, 0, 0)
	if n, err := f.Read(make([]byte, pieceCost)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
	testproblem.Want(t, f.err, codes.ResourceExhausted, "TooLarge")
	if api.ProblemOf(f.err).GetDetail() == "" {
		t.Error("the caller is not told why")
	}
}
