package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/relay"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// maxStreamLine limits one line of a stream's request: 64 KiB in base64, or a long command.
const maxStreamLine = 1 << 20

// streamPages adds the bidirectional streams, which the gateway does not support. Request and answer are lines of JSON, one
// message each. They call the gRPC methods with the same permissions and limits.
func (s *server) streamPages(mux *http.ServeMux) {
	projects := carav1.NewProjectServiceClient(s.Conn)
	mux.HandleFunc("/api/v1/projects/{name}/exec", func(w http.ResponseWriter, r *http.Request) {
		duplex(s, w, r, projects.Exec, func(first *carav1.ExecRequest) *string {
			if first.GetStart() == nil {
				return nil
			}
			return &first.GetStart().Name
		})
	})
	mux.HandleFunc("/api/v1/projects/{name}/port-forward", func(w http.ResponseWriter, r *http.Request) {
		duplex(s, w, r, projects.PortForward, func(first *carav1.PortForwardRequest) *string {
			if first.GetStart() == nil {
				return nil
			}
			return &first.GetStart().Name
		})
	})
}

// message is the pointer to a generated type.
type message[M any] interface {
	*M
	proto.Message
}

// duplex carries one such call. nameOf returns where to put the project's name from the path in the first message, or nil
// if that message is not `start`.
func duplex[Q, A any, PQ message[Q], PA message[A]](
	s *server, w http.ResponseWriter, r *http.Request, call func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[Q, A], error), nameOf func(PQ) *string,
) {
	if r.Method != http.MethodPost {
		wrongMethod(w, r, http.MethodPost)
		return
	}
	w.Header().Set("Connection", "close") // the rest of the body must not be read as the next request
	conn := http.NewResponseController(w)
	if err := conn.EnableFullDuplex(); err != nil && r.ProtoMajor < 2 { // HTTP/2 is always full duplex
		WriteProblem(w, api.ProblemOf(fmt.Errorf("speak in both directions: %w", err)))
		return
	}
	lines := lineReader{in: bufio.NewReaderSize(r.Body, 64<<10)}
	first := PQ(new(Q))
	if err := firstLine(conn, &lines, first); err != nil {
		WriteProblem(w, Problem(err))
		return
	}
	name := nameOf(first)
	switch {
	case name == nil:
		WriteProblem(w, Problem(relay.NoStart(nil)))
		return
	case *name != "" && *name != r.PathValue("name"):
		WriteProblem(w, Problem(api.Invalid("the request", api.Field("start.name", "is %q, and the path says %q", *name, r.PathValue("name")))))
		return
	}
	*name = r.PathValue("name")

	ctx, cancel := context.WithCancelCause(metadata.NewOutgoingContext(r.Context(), metadata.MD{"authorization": r.Header.Values("Authorization")}))
	defer cancel(nil)
	stream, err := call(ctx)
	if err != nil {
		WriteProblem(w, Problem(err))
		return
	}
	sent := s.Guard.Go(r.URL.Path, func() error { return sendLines[Q, A, PQ](stream, first, &lines) }, func(err error) {
		if err != nil {
			cancel(err)
		}
	})
	answerLines[Q, A, PA](ctx, w, conn, stream)
	cancel(nil)
	_ = conn.SetReadDeadline(time.Now()) // ends a pending read of the body
	<-sent
}

// firstLine reads the first message of a request within a deadline.
func firstLine(conn *http.ResponseController, lines *lineReader, first proto.Message) error {
	if err := conn.SetReadDeadline(time.Now().Add(admission.BodyTimeout)); err != nil {
		return err
	}
	if err := lines.next(first); err != nil {
		if errors.Is(err, io.EOF) {
			return relay.NoStart(nil)
		}
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

// sendLines sends a request's messages to the stream until the body ends.
func sendLines[Q, A any, PQ message[Q]](stream grpc.BidiStreamingClient[Q, A], m PQ, lines *lineReader) error {
	for {
		if stream.Send((*Q)(m)) != nil {
			return nil // the call has ended; its answer has the reason
		}
		m = new(Q)
		err := lines.next(m)
		if errors.Is(err, io.EOF) {
			return stream.CloseSend()
		}
		if err != nil {
			return err
		}
	}
}

// answerLines writes one line for each answer. An error before the first line is the answer of the call, a later one is a
// line.
func answerLines[Q, A any, PA message[A]](ctx context.Context, w http.ResponseWriter, conn *http.ResponseController, stream grpc.BidiStreamingClient[Q, A]) {
	for begun := false; ; begun = true {
		m, err := stream.Recv()
		var line []byte
		if err == nil {
			line, err = compact(PA(m))
		} else if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause // an invalid message of the caller ended the call
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil && !begun:
			WriteProblem(w, Problem(err))
			return
		case err != nil:
			problem, _ := compact(Problem(err)) // encoding a problem does not fail
			_, _ = fmt.Fprintf(w, "{\"error\":%s}\n", problem)
			return
		case !begun:
			w.Header().Set("Content-Type", ContentStream)
			w.WriteHeader(http.StatusOK)
		}
		if _, err := w.Write(append(line, '\n')); err != nil || conn.Flush() != nil {
			return
		}
	}
}

// lineReader reads one message from each line.
type lineReader struct{ in *bufio.Reader }

// next returns io.EOF after the last line.
func (l *lineReader) next(m proto.Message) error {
	var line []byte
	for {
		part, err := l.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxStreamLine:
			return api.BadRequest("a line of the request is larger than %s", text.Size(maxStreamLine))
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return api.BadRequest("read the request's body: %v", err)
		}
		if blank := len(bytes.TrimSpace(line)) == 0; blank && err != nil {
			return io.EOF
		} else if blank {
			line = nil
			continue
		}
		if err := protojson.Unmarshal(line, m); err != nil {
			return api.BadRequest("a line of the request: %s", strings.TrimPrefix(err.Error(), "proto:"))
		}
		return nil
	}
}
