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
	// pieceCost is the buffer that gRPC keeps for each piece of a body that it reads, however small the piece.
	pieceCost = 16 << 10
	// maxStreamMessage bounds one message of a call that streams: 1 MiB of data, and what is around it.
	maxStreamMessage = 1<<20 + 64<<10
)

// frames is the body of a call whose caller streams. gRPC over net/http reads a body as fast as it comes and keeps it
// until the handler takes it, so that a caller who sends to a command that does not read would fill the server's memory.
// Held back here, HTTP/2 holds the caller back.
//
// What holds:
//
//   - One Read never returns parts of two messages, and it returns a piece of pieceCost bytes or a message's end. So a
//     caller cannot make gRPC keep many buffers by sending few bytes at a time.
//   - No more than readAheadLimit is read ahead of the handler, but for the rest of the message that it waits for.
//   - A message above the limit ends the call, and so does its handler's next receive.
//   - A handler gets messages no faster than the method's pace.
//
// To hold back one stream can hold up those beside it, once the connection's window is full. An honest agent never gets
// there: package flow bounds what it sends on Attach, and on Connect it sends a heartbeat every few seconds.
type frames struct {
	io.ReadCloser
	limit int64
	pace  *rate.Limiter // nil for no bound

	// Only Read uses these.
	left int64 // bytes of the message that is being read

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	ahead   int64         // what gRPC keeps, in bytes of its buffers
	current int64         // the part of ahead that the message which is being read has
	whole   []int64       // the parts of the complete messages, oldest first
	waiting bool          // the handler waits for a message
	closed  bool
	err     error // why the call ends, where the caller is to blame
}

type framesKey struct{}

// HoldBack makes a request's body frames. message bounds the bytes of one message, pace and burst the messages a second;
// zero is the default, or no bound.
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

// Read reads on where there is room, and always for a handler that waits.
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

// piece reads the next piece of a message: as much as p has room for, or to the message's end.
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

// blame ends the call for what its caller sent. For gRPC the body is at its end: of any other error gRPC would tell the
// caller itself, in words of its own.
func (f *frames) blame(err error) error {
	f.change(func() { f.err = err })
	return io.EOF
}

// Close ends the call's body, and the wait for room.
func (f *frames) Close() error {
	f.change(func() { f.closed = true })
	return f.ReadCloser.Close()
}

// Receive takes a message of a call, and makes room for as much.
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
