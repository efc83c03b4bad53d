package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// frameHeader is what gRPC puts before each message: a flag and the message's length.
	frameHeader = 5
	// maxJoin bounds the request of a node that joins: a certificate request and some labels.
	maxJoin = 32 << 10
	// maxJoins is how many of them are read side by side, and maxJoinsEach how many of one address.
	maxJoins, maxJoinsEach = 64, 8
)

// grpcBody prepares the body of a call that may be made. The body of a call with one message is read here, in bounded
// time and within the budget: gRPC over net/http would read it without bounds, and keep a buffer of 16 KiB for each
// piece of it, however small. A call that streams reads as it goes: see frames.
func (d *door) grpcBody(w http.ResponseWriter, r *http.Request, v *visit, route route) (*http.Request, func(), error) {
	if route.sends {
		body := newFrames(r.Body, methods[route.method])
		r = r.WithContext(context.WithValue(r.Context(), framesKey{}, body))
		r.Body = body
		return r, func() {}, nil
	}
	message, release, err := d.readMessage(w, r, v)
	if err != nil {
		return r, nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(message))
	return r, release, nil
}

// bodyLimit is how large a request of a caller may be.
func (s *Server) bodyLimit(a identity.Actor) int64 {
	if a.Role == api.RoleNone {
		return min(maxJoin, int64(s.cfg.MaxBodyBytes))
	}
	return int64(s.cfg.MaxBodyBytes)
}

// roomFor reserves room for a body before it is read. Strangers wait for a turn instead: their bodies are small.
func (s *Server) roomFor(ctx context.Context, v *visit, size int64) (release func(), err error) {
	if v.actor.Role != api.RoleNone {
		return s.bodies.reserve(ctx, v.actor.Name, size)
	}
	waiting, cancel := context.WithTimeout(ctx, strangerTimeout)
	defer cancel()
	if err := s.joins.take(waiting, v.from); err != nil {
		return nil, api.Unavailable("too many nodes join at once: try again later")
	}
	return func() { s.joins.done(v.from) }, nil
}

// readMessage reads the one message of a gRPC call, with the header before it.
func (d *door) readMessage(w http.ResponseWriter, r *http.Request, v *visit) ([]byte, func(), error) {
	conn := http.NewResponseController(w)
	if v.actor.Role != api.RoleNone { // that of strangers is shorter, and set
		_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	var header [frameHeader]byte
	if _, err := io.ReadFull(r.Body, header[:]); err != nil {
		if errors.Is(err, io.EOF) { // gRPC says what is wrong with a call without a message
			return nil, func() {}, nil
		}
		return nil, nil, bodyError(err)
	}
	size, limit := int64(binary.BigEndian.Uint32(header[1:])), d.bodyLimit(v.actor)
	if size > limit {
		return nil, nil, api.TooLarge("the request is larger than %s: send it in parts", text.Size(limit))
	}
	release, err := d.roomFor(r.Context(), v, size)
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

// bodyError is why a body could not be read.
func bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return api.Timeout("the request's body did not arrive in time: send it again")
	}
	return api.BadRequest("read the request's body: %v", err)
}
