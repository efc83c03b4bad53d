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

// maxForwarded limits the connections of one port-forward; further connections wait.
const maxForwarded = 250

// mapping is a local port (0: any free one) and the port of the service.
type mapping struct{ local, remote int }

type portForwardOptions struct {
	serviceOptions
	mappings []mapping
}

func newPortForward(a *app) *cobra.Command {
	o := &portForwardOptions{serviceOptions: serviceOptions{app: a}}
	cmd := command(&cobra.Command{
		Use: "port-forward PROJECT[/SERVICE] [LOCAL:]PORT...", Short: "Let programs on this machine connect to ports of a service",
		Long: "Let programs on this machine connect to ports of a service, until Ctrl-C. PORT is any TCP port on which the service\n" +
			"listens in its container, with or without an ingress. LOCAL is the port of 127.0.0.1: PORT if it is left out, any\n" +
			"free one if it is 0.",
		Example: "  caractrl port-forward shop/db 5432\n  caractrl port-forward project/shop/web 8080:80 0:9090",
		Args:    cobra.MinimumNArgs(2),
	}, o)
	o.flag(cmd, "the service, if the project has several")
	return cmd
}

func (o *portForwardOptions) parse(args []string) error {
	for _, arg := range args[1:] {
		m, err := parseMapping(arg)
		if err != nil {
			return err
		}
		o.mappings = append(o.mappings, m)
	}
	return o.serviceOptions.parse(args)
}

// parseMapping reads `80`, `8080:80` or `0:80`; `:80` means `0:80`.
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
		return mapping{}, fmt.Errorf("%q does not name ports: write PORT or LOCAL:PORT, such as 8080:80, each up to 65535", arg)
	}
	return mapping{int(l), int(r)}, nil
}

func (o *portForwardOptions) run(ctx context.Context) error {
	t, err := o.resolve(ctx, o.projects())
	if err != nil {
		return err
	}
	server, err := o.access()
	if err != nil {
		return err
	}
	f := &forwarder{app: o.app, server: server, to: t, room: make(chan struct{}, maxForwarded)}
	ctx, f.end = context.WithCancelCause(ctx)
	defer f.end(nil)
	defer f.running.Wait()
	for _, m := range o.mappings {
		listener, err := listenLocal(m.local)
		if err != nil {
			f.end(err)
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
		defer listener.Close()
		fmt.Fprintf(o.Out, "Forwarding from %s -> %s:%d\n", listener.Addr(), t.service, m.remote)
		f.running.Go(func() { f.accept(ctx, listener, m.remote) })
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil // Ctrl-C is the normal end
}

func listenLocal(port int) (*net.TCPListener, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d of this machine is in use: choose another, as in 0:PORT for any that is free", port)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("only the administrator of this machine may use port %d: choose another, as in 0:PORT for any that is free", port)
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

// serve forwards one connection, and prints its error in one line. An error that affects all connections ends the command.
func (f *forwarder) serve(ctx context.Context, conn *net.TCPConn, port int) {
	err := f.forward(ctx, conn, port)
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

// errProgramGone means that the local program broke its connection.
var errProgramGone = errors.New("the program has gone")

// forward uses a separate connection to the server, so that a program that does not read does not slow down the others. It
// closes conn. After an error it resets conn, so that the program does not see a normal end.
func (f *forwarder) forward(ctx context.Context, conn *net.TCPConn, port int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	abort := func() {
		_ = conn.SetLinger(0) // it may be closed already
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

// open starts the call and waits until the server has accepted it. If the connection breaks before that, for example
// because the server is busy, no data of the program is lost, so open tries again once.
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
		}}}) // if the send fails the stream has ended; receiving returns the reason
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

// sendConn sends what the program writes, until it closes its half. It returns false if the connection broke.
func sendConn(stream carav1.ProjectService_PortForwardClient, conn *net.TCPConn) (whole bool) {
	for {
		data := make([]byte, inputChunk)
		n, err := conn.Read(data)
		if n > 0 && stream.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Data{Data: data[:n]}}) != nil {
			return true // the stream has ended; the receiver sees it too
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

// receiveConn writes what the service sends, until both halves are closed.
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
				return nil // the program no longer reads
			}
		case *carav1.PortForwardResponse_Closed:
			_ = conn.CloseWrite() // the program may have disconnected
		}
	}
}
