package admission

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// readAheadLimit is how many bytes of a call's messages are read before its handler asks for them.
	readAheadLimit = 256 << 10
	// pieceCost is the size of the buffer that gRPC keeps for each piece of a body that it reads, however small the piece
	// is.
	pieceCost = 16 << 10
	// maxStreamMessage limits one message of a streaming call: 1 MiB of data and its envelope.
	maxStreamMessage = 1<<20 + 64<<10
)

// frames is the request body of a streaming call. gRPC over net/http reads a body as fast as it arrives and keeps it until
// the handler takes it. A caller that sends to a command that does not read would fill the server's memory. frames stops
// reading instead, and HTTP/2 flow control then stops the caller.
//
// Invariants:
//
//   - One Read never returns parts of two messages. It returns a piece of pieceCost bytes or the end of a message. So a
//     caller cannot make gRPC keep many buffers by sending few bytes at a time.
//   - At most readAheadLimit is read ahead of the handler, except for the rest of the message that the handler waits for.
//   - A message above the limit ends the call, and the handler's next receive fails.
//   - A handler receives messages no faster than the method's pace.
//
// Stopping one stream can block the other streams of the connection when the connection's window is full. A correct agent
// never reaches that point: package flow limits what it sends on Attach, and on Connect it sends a heartbeat every few
// seconds.
type frames struct {
	io.ReadCloser
	limit int64
	pace  *rate.Limiter // nil means no limit

	// Only Read uses this field.
	left int64 // bytes of the message that is being read

	mu      sync.Mutex
	changed chan struct{} // closed when one of the fields below changes
	ahead   int64         // what gRPC keeps, in bytes of its buffers
	current int64         // the part of ahead that belongs to the message being read
	whole   []int64       // the parts of the complete messages, oldest first
	waiting bool          // the handler waits for a message
	closed  bool
	err     error // why the call ends, if the caller is at fault
}

type framesKey struct{}

// HoldBack replaces a request's body with frames. message limits the bytes of one message. pace and burst limit the
// messages a second. Zero means the default, or no limit.
func HoldBack(r *http.Request, message int64, pace rate.Limit, burst int) *http.Request {
	body := newFrames(r.Body, message, pace, burst)
	r = r.WithContext(context.WithValue(r.Context(), framesKey{}, body))
	r.Body = body
	return r
}

func newFrames(body io.ReadCloser, message int64, pace rate.Limit, burst int) *frames {
	f := &frames{ReadCloser: body, limit: maxStreamMessage, changed: make(chan struct{})}
	if message > 0 {
		f.limit = message
	}
	if pace > 0 {
		f.pace = rate.NewLimiter(pace, burst)
	}
	return f
}

func (f *frames) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Read waits until more may be read. It does not wait if the handler waits for a message.
func (f *frames) Read(p []byte) (int, error) {
	f.awaitRoom()
	n, err := f.piece(p)
	f.change(func() {
		if n > 0 {
			f.ahead += pieceCost
			f.current += pieceCost
			if f.left == 0 && err == nil {
				f.whole = append(f.whole, f.current)
				f.current = 0
			}
		}
	})
	return n, err
}

func (f *frames) awaitRoom() {
	for {
		f.mu.Lock()
		needed := f.waiting && len(f.whole) == 0
		held, changed := f.ahead >= readAheadLimit && !needed && !f.closed, f.changed
		f.mu.Unlock()
		if !held {
			return
		}
		<-changed
	}
}

// piece reads the next piece of a message: until p is full or the message ends.
func (f *frames) piece(p []byte) (n int, err error) {
	if len(p) < frameHeader {
		return 0, io.ErrShortBuffer
	}
	if f.left == 0 {
		if n, err = io.ReadFull(f.ReadCloser, p[:frameHeader]); err != nil {
			return n, err
		}
		f.left = int64(binary.BigEndian.Uint32(p[1:frameHeader]))
		if f.left > f.limit {
			return 0, f.blame(api.TooLarge("a message of this call is larger than %s", text.Size(f.limit)))
		}
	}
	want := p[n:min(int64(len(p)), int64(n)+f.left)]
	got, err := io.ReadFull(f.ReadCloser, want)
	f.left -= int64(got)
	return n + got, err
}

// blame ends the call because of what its caller sent. It reports the end of the body to gRPC, because gRPC would send any
// other error to the caller in its own words.
func (f *frames) blame(err error) error {
	f.change(func() { f.err = err })
	return io.EOF
}

// Close ends the call's body and a pending Read.
func (f *frames) Close() error {
	f.change(func() { f.closed = true })
	return f.ReadCloser.Close()
}

// Receive receives the next message of a call, which allows frames to read more.
func Receive(ss grpc.ServerStream, m any) error {
	f, _ := ss.Context().Value(framesKey{}).(*frames)
	if f == nil {
		return ss.RecvMsg(m)
	}
	if f.pace != nil {
		if err := f.pace.Wait(ss.Context()); err != nil {
			return err
		}
	}
	f.change(func() { f.waiting = true })
	err := ss.RecvMsg(m)
	f.change(func() {
		f.waiting = false
		if len(f.whole) > 0 && err == nil {
			f.ahead -= f.whole[0]
			f.whole = f.whole[1:]
		}
		if err != nil && f.err != nil {
			err = f.err
		}
	})
	return err
}
