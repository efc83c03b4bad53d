package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

// maxForwarded bounds the connections of one port-forward; more wait until one of them ends.
const maxForwarded = 250

// mapping is a port of this machine (0: any) and the service's port that it leads to.
type mapping struct{ local, remote int }

func (a *app) portForwardCommand() *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use: "port-forward PROJECT[/SERVICE] [LOCAL:]PORT...", Short: "Let programs on this machine connect to ports of a service",
		Long: "Let programs on this machine connect to ports of a service, until Ctrl-C. Any TCP port on which the service listens in\n" +
			"its container will do, whether an ingress leads to it or not. LOCAL is the port of 127.0.0.1: the same one where it is\n" +
			"left out, any free one where it is 0.",
		Example:           "  caractrl port-forward shop/db 5432\n  caractrl port-forward project/shop/web 8080:80 0:9090",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], service)
			if err != nil {
				return err
			}
			mappings := make([]mapping, len(args)-1)
			for i, arg := range args[1:] {
				if mappings[i], err = parseMapping(arg); err != nil {
					return err
				}
			}
			return a.portForward(cmd.Context(), t, mappings)
		},
	}
	a.serviceFlag(cmd, &service, "the service, where the project has several")
	return cmd
}

// parseMapping takes `80`, `8080:80` and `0:80`; `:80` is the last of them.
func parseMapping(arg string) (mapping, error) {
	local, remote, both := strings.Cut(arg, ":")
	if !both {
		remote = local
	} else if local == "" {
		local = "0"
	}
	l, lerr := strconv.ParseUint(local, 10, 16)
	r, rerr := strconv.ParseUint(remote, 10, 16)
	if lerr != nil || rerr != nil || r == 0 {
		return mapping{}, fmt.Errorf("%q is no pair of ports: write PORT, or LOCAL:PORT, such as 8080:80, each up to 65535", arg)
	}
	return mapping{int(l), int(r)}, nil
}

func (a *app) portForward(ctx context.Context, t target, mappings []mapping) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	if t, err = t.resolve(ctx, c); err != nil {
		return err
	}
	server, err := a.target()
	if err != nil {
		return err
	}
	f := &forwarder{app: a, server: server, to: t, room: make(chan struct{}, maxForwarded)}
	ctx, f.end = context.WithCancelCause(ctx)
	defer f.end(nil)
	defer f.running.Wait()
	for _, m := range mappings {
		listener, err := listenLocal(m.local)
		if err != nil {
			f.end(err)
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
		defer listener.Close()
		fmt.Fprintf(a.Out, "Forwarding from %s -> %s:%d\n", listener.Addr(), t.service, m.remote)
		f.running.Go(func() { f.accept(ctx, listener, m.remote) })
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil // Ctrl-C is how it ends
}

func listenLocal(port int) (*net.TCPListener, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d of this machine is in use: choose another, as in 0:PORT for any that is free", port)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("port %d of this machine is for the administrator alone: choose another, as in 0:PORT for any that is free", port)
	case err != nil:
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// forwarder carries the connections of one command.
type forwarder struct {
	*app
	server  access.Context
	to      target
	room    chan struct{} // has an element for each connection
	end     context.CancelCauseFunc
	running sync.WaitGroup
	saying  sync.Mutex
}

func (f *forwarder) accept(ctx context.Context, l *net.TCPListener, port int) {
	for {
		select {
		case f.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() == nil {
				f.end(fmt.Errorf("accept connections: %w", err))
			}
			return
		}
		f.running.Go(func() {
			defer func() { <-f.room }()
			f.serve(ctx, conn, port)
		})
	}
}

// serve carries one connection and says in one line what went wrong with it. What will go wrong with every other, too,
// ends the command.
func (f *forwarder) serve(ctx context.Context, conn *net.TCPConn, port int) {
	err := f.carry(ctx, conn, port)
	if err == nil || ctx.Err() != nil {
		return
	}
	if code := api.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		f.end(err)
		return
	}
	detail := api.ProblemOf(err).GetDetail()
	if cause, ok := unreachable(err); ok {
		detail = cause
	}
	f.saying.Lock()
	defer f.saying.Unlock()
	fmt.Fprintf(f.Err, "error: %s:%d: %s\n", f.to.service, port, term.Line(detail))
}

// errProgramGone says that a program of this machine broke its connection off.
var errProgramGone = errors.New("the program has gone")

// carry is a call on a connection to the server of its own: TCP holds up each by itself, and a program that does not read
// is in nobody's way. It closes conn: a connection that broke in a way that does not look like its end.
func (f *forwarder) carry(ctx context.Context, conn *net.TCPConn, port int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	abort := func() {
		_ = conn.SetLinger(0) // no harm where it is closed already
		_ = conn.Close()
	}
	defer context.AfterFunc(ctx, abort)()
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel(nil)
	link, stream, err := f.open(ctx, port)
	if err != nil {
		abort()
		return err
	}
	defer link.Close()
	sender.Go(func() {
		if !sendConn(stream, conn) {
			cancel(errProgramGone)
		}
	})
	err = receiveConn(stream, conn)
	switch {
	case errors.Is(context.Cause(ctx), errProgramGone):
		return nil
	case err != nil:
		abort()
	default:
		_ = conn.Close()
	}
	return err
}

// open begins the call and waits until the server has taken it. A connection to the server that breaks before that, as one
// does that a busy server closes, has carried no byte of the program: open tries a second one.
func (f *forwarder) open(ctx context.Context, port int) (*grpc.ClientConn, carav1.ProjectService_PortForwardClient, error) {
	link, stream, err := f.begin(ctx, port)
	if _, broken := unreachable(err); broken {
		link, stream, err = f.begin(ctx, port)
	}
	return link, stream, err
}

func (f *forwarder) begin(ctx context.Context, port int) (*grpc.ClientConn, carav1.ProjectService_PortForwardClient, error) {
	link, err := access.Dial(f.server)
	if err != nil {
		return nil, nil, err
	}
	stream, err := carav1.NewProjectServiceClient(link).PortForward(ctx)
	if err == nil {
		_ = stream.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Start{Start: &carav1.PortForwardStart{
			Name: f.to.project, Service: f.to.service, Port: int32(port),
		}}}) // a failed send says only that the stream has ended; what is received says why
		if header, _ := stream.Header(); header == nil {
			_, err = stream.Recv()
		}
	}
	if err != nil {
		_ = link.Close()
		return nil, nil, err
	}
	return link, stream, nil
}

// sendConn passes on what a program says, to the end of its half. It returns false where the connection broke.
func sendConn(stream carav1.ProjectService_PortForwardClient, conn *net.TCPConn) (whole bool) {
	for {
		data := make([]byte, inputChunk)
		n, err := conn.Read(data)
		if n > 0 && stream.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Data{Data: data[:n]}}) != nil {
			return true // the stream has ended, which the receiver knows
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = stream.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Closed{Closed: true}})
			return true
		case err != nil:
			return false
		}
	}
}

// receiveConn passes on what the service says, until both halves are at their end.
func receiveConn(stream carav1.ProjectService_PortForwardClient, conn *net.TCPConn) error {
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch m := msg.GetMessage().(type) {
		case *carav1.PortForwardResponse_Data:
			if _, err := conn.Write(m.Data); err != nil {
				return nil // the program takes no more: it knows
			}
		case *carav1.PortForwardResponse_Closed:
			_ = conn.CloseWrite() // a program that has gone needs no end
		}
	}
}
