package admission

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// bodyWait is how long a call waits until memory is free for its body. After that the call is rejected.
const bodyWait = 5 * time.Second

const (
	// StrangerTimeout limits the whole request of a caller that has not authenticated.
	StrangerTimeout = 10 * time.Second
	// BodyTimeout is how long a client may take to send a body.
	BodyTimeout = time.Minute

	// frameHeader is the size of the gRPC header of each message: a flag and the message's length.
	frameHeader = 5
	// MaxJoin limits the request of a node that joins: a certificate request and some labels.
	MaxJoin = 32 << 10
	// maxJoins is how many join requests are read concurrently. maxJoinsEach is the limit for one address.
	maxJoins, maxJoinsEach = 64, 8
)

// Bodies limits the bytes of request bodies in memory. Memory for a body is reserved before the body is read and released
// when the call ends. One caller gets at most half of the total, so it cannot block the others.
type Bodies struct {
	largest int64  // bytes of one body
	joins   *Turns // limits unauthenticated callers, whose bodies are small
	room    *semaphore.Weighted
	share   int64 // limit of one caller

	mu      sync.Mutex
	callers map[string]int64 // bytes by the actor's name
}

// NewBodies allows largest bytes for one body and total bytes for all bodies.
func NewBodies(largest, total int64) *Bodies {
	return &Bodies{largest: largest, joins: NewTurns(maxJoins, maxJoinsEach), room: semaphore.NewWeighted(total), share: total / 2, callers: map[string]int64{}}
}

// reserve waits until size bytes are free and reserves them.
func (b *Bodies) reserve(ctx context.Context, caller string, size int64) (release func(), err error) {
	if !b.add(caller, size) {
		return nil, api.TooMany("the requests of %s that are under way are too large together: send fewer at once, or try again later", caller)
	}
	waiting, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	if err := b.room.Acquire(waiting, size); err != nil {
		b.add(caller, -size)
		return nil, api.Unavailable("the server has no room for more requests now: try again later")
	}
	return func() {
		b.room.Release(size)
		b.add(caller, -size)
	}, nil
}

// InUse returns how many bytes a caller has reserved.
func (b *Bodies) InUse(caller string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.callers[caller]
}

func (b *Bodies) add(caller string, size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.callers[caller] + size
	switch {
	case size > 0 && now > b.share:
		return false
	case now == 0:
		delete(b.callers, caller)
	default:
		b.callers[caller] = now
	}
	return true
}

// limit returns the largest request that a caller may send.
func (b *Bodies) limit(a identity.Actor) int64 {
	if a.Role == api.RoleNone {
		return min(MaxJoin, b.largest)
	}
	return b.largest
}

// roomFor reserves memory for a body before it is read. An unauthenticated caller waits for a turn instead: its body is
// small.
func (b *Bodies) roomFor(ctx context.Context, v *Visit, size int64) (release func(), err error) {
	if v.Actor.Role != api.RoleNone {
		return b.reserve(ctx, v.Actor.Name, size)
	}
	waiting, cancel := context.WithTimeout(ctx, StrangerTimeout)
	defer cancel()
	if err := b.joins.Take(waiting, v.From); err != nil {
		return nil, api.Unavailable("too many nodes join at once: try again later")
	}
	return func() { b.joins.Done(v.From) }, nil
}

// ReadMessage reads the header and the message of a gRPC call that sends one message.
func (b *Bodies) ReadMessage(w http.ResponseWriter, r *http.Request, v *Visit) ([]byte, func(), error) {
	conn := http.NewResponseController(w)
	if v.Actor.Role != api.RoleNone { // an unauthenticated caller already has a shorter deadline
		_ = conn.SetReadDeadline(time.Now().Add(BodyTimeout))
	}
	var header [frameHeader]byte
	if _, err := io.ReadFull(r.Body, header[:]); err != nil {
		if errors.Is(err, io.EOF) { // gRPC reports a call without a message
			return nil, func() {}, nil
		}
		return nil, nil, bodyError(err)
	}
	size, limit := int64(binary.BigEndian.Uint32(header[1:])), b.limit(v.Actor)
	if size > limit {
		return nil, nil, api.TooLarge("the request is larger than %s: send it in parts", text.Size(limit))
	}
	release, err := b.roomFor(r.Context(), v, size)
	if err != nil {
		return nil, nil, err
	}
	message := bytes.NewBuffer(append(make([]byte, 0, frameHeader+min(size, 32<<10)), header[:]...))
	if _, err := io.CopyN(message, r.Body, size); err != nil {
		release()
		return nil, nil, bodyError(err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return message.Bytes(), release, nil
}

// bodyError returns the error for a body that could not be read.
func bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return api.Timeout("the request's body did not arrive in time: send it again")
	}
	return api.BadRequest("read the request's body: %v", err)
}

// TakeBody reserves memory for a body and reads it.
func (b *Bodies) TakeBody(w http.ResponseWriter, r *http.Request, v *Visit) (body []byte, release func(), problem *carav1.Problem) {
	limit := b.limit(v.Actor)
	tooLarge := &carav1.Problem{
		Title: api.TitleTooLarge, Status: http.StatusRequestEntityTooLarge,
		Detail: "the request's body is larger than " + text.Size(limit) + ": apply the objects in parts",
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return nil, nil, tooLarge
	}
	size := r.ContentLength
	if size < 0 { // the body is chunked
		size = limit
	}
	release, err := b.roomFor(r.Context(), v, size)
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, nil, api.ProblemOf(err)
	}
	body, err = readBody(w, r, v, limit)
	if err == nil {
		return body, release, nil
	}
	release()
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok && over != nil {
		return nil, nil, tooLarge
	}
	return nil, nil, api.ProblemOf(bodyError(err))
}

// readBody reads a body within a deadline.
func readBody(w http.ResponseWriter, r *http.Request, v *Visit, limit int64) ([]byte, error) {
	conn, within := http.NewResponseController(w), BodyTimeout
	if v.Actor.Role == api.RoleNone {
		within = StrangerTimeout
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, err
	}
	return body, conn.SetReadDeadline(time.Time{})
}
