package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// dialPatience is the timeout for a service to accept a forwarded connection.
	dialPatience = 10 * time.Second
	// forwardChunk is the largest chunk of a connection's data.
	forwardChunk = 32 << 10
)

// portForward connects to a port of a service on its project's network, and forwards each direction until it ends. A broken
// connection is an error, so that it cannot be mistaken for one that ended normally.
func (s *Server) portForward(ctx context.Context, start *carav1.PortForwardStart, server *serverEnd) error {
	conn, err := s.dialService(ctx, start)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		_ = conn.SetLinger(0) // the client left without ending its direction
		_ = conn.Close()
	})()
	if err := server.Send(ctx, forwarded(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Connected{Connected: true}})); err != nil {
		return err
	}
	upCtx, stop := context.WithCancel(ctx)
	var writer sync.WaitGroup
	written := make(chan struct{})
	writer.Go(func() { writeForwarded(upCtx, server, conn, written) })
	err = readForwarded(ctx, server, conn)
	if err == nil {
		select {
		case <-written:
		case <-ctx.Done():
		}
	}
	stop()
	_ = conn.Close() // also ends a pending write
	writer.Wait()
	if err != nil {
		return streamError{codes.Unavailable, fmt.Errorf("%s:%d broke the connection off: %w", start.GetService(), start.GetPort(), plain(err))}
	}
	return nil
}

func (s *Server) dialService(ctx context.Context, start *carav1.PortForwardStart) (*net.TCPConn, error) {
	c, err := s.runningContainer(ctx, start.GetName(), start.GetService())
	if err != nil {
		return nil, err
	}
	ip := c.Networks[step.NetworkName(start.GetName())].IP
	if ip == "" {
		return nil, streamError{codes.FailedPrecondition, fmt.Errorf("service %s of project %s has no address on its network", start.GetService(), start.GetName())}
	}
	dialer := net.Dialer{Timeout: dialPatience}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(start.GetPort()))))
	if err != nil {
		return nil, streamError{codes.Unavailable, fmt.Errorf("connect to %s:%d: %w", start.GetService(), start.GetPort(), plain(err))}
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connect to %s: it is a %T", ip, conn), conn.Close())
	}
	return tcp, nil
}

// plain removes the addresses from a network error: they belong to a network that the user does not see.
func plain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func forwarded(m *carav1.PortForwardResponse) *carav1.AttachRequest {
	return &carav1.AttachRequest{PortForward: m}
}

// readForwarded forwards what a service sends, until the end of its direction.
func readForwarded(ctx context.Context, server *serverEnd, conn io.Reader) error {
	for {
		data := make([]byte, forwardChunk)
		n, err := conn.Read(data)
		if n > 0 {
			m := &carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Data{Data: data[:n]}}
			if err := server.Send(ctx, forwarded(m)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return server.Send(ctx, forwarded(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Closed{Closed: true}}))
		case err != nil:
			return err
		}
	}
}

// writeForwarded forwards what a client sends, until the end of its direction or until the service accepts no more. Then it
// drops the rest, and the service's own direction continues. It closes written at that moment.
func writeForwarded(ctx context.Context, server *serverEnd, conn *net.TCPConn, written chan<- struct{}) {
	refused := false
	for {
		msg, err := server.Recv(ctx)
		if err != nil {
			return
		}
		switch m := msg.GetPortForward().GetMessage().(type) {
		case *carav1.PortForwardRequest_Data:
			if refused {
				continue
			}
			if _, err := conn.Write(m.Data); err != nil {
				refused = true
				close(written)
			}
		case *carav1.PortForwardRequest_Closed:
			if !refused {
				_ = conn.CloseWrite() // if the service has left, the reader gets the error
				close(written)
			}
			return
		}
	}
}
