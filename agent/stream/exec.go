package stream

import (
	"context"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// exec runs a command in a service's container. A separate goroutine forwards its input, so that a command that does not
// read its input can still send output, and can be ended when its client leaves.
func (s *Server) exec(ctx, outer context.Context, start *carav1.ExecStart, server *serverEnd) error {
	c, err := s.runningContainer(ctx, start.GetName(), start.GetService())
	if err != nil {
		return err
	}
	p, err := s.Engine.Start(ctx, c.ID, engine.Command{
		Args: start.GetCommand(), Stdin: start.GetStdin(), TTY: start.GetTty(), User: start.GetUser(), WorkingDir: start.GetWorkingDir(),
	})
	if err != nil {
		return err
	}
	if err := server.Send(ctx, &carav1.AttachRequest{Exec: said(nil, false)}); err != nil { // it runs, and may stay silent
		p.End(outer)
		return err
	}
	input, stop := context.WithCancel(ctx)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		if start.GetTty() && start.GetSize() != nil {
			s.resize(input, p, start.GetSize())
		}
		s.feed(input, server, p, start.GetStdin())
	}()
	code, err := p.Wait(ctx, func(data []byte, stderr bool) error {
		return server.Send(ctx, &carav1.AttachRequest{Exec: said(data, stderr)})
	})
	stop()
	p.End(outer)
	<-fed
	if err != nil {
		return err
	}
	return server.Send(ctx, &carav1.AttachRequest{Exec: &carav1.ExecResponse{Message: &carav1.ExecResponse_ExitCode{ExitCode: int32(code)}}})
}

func said(data []byte, stderr bool) *carav1.ExecResponse {
	if stderr {
		return &carav1.ExecResponse{Message: &carav1.ExecResponse_Stderr{Stderr: data}}
	}
	return &carav1.ExecResponse{Message: &carav1.ExecResponse_Stdout{Stdout: data}}
}

// feed forwards a command's input, if it is wanted, until the end. Input that the command does not accept, because it has
// closed its input or has ended, is dropped.
func (s *Server) feed(ctx context.Context, server *serverEnd, p engine.Process, wanted bool) {
	for {
		msg, err := server.Recv(ctx)
		if err != nil {
			return
		}
		switch m := msg.GetExec().GetMessage().(type) {
		case *carav1.ExecRequest_Stdin:
			if wanted {
				_, err = p.Write(m.Stdin)
			}
		case *carav1.ExecRequest_StdinClosed:
			if wanted {
				err = p.CloseInput()
			}
		case *carav1.ExecRequest_Resize:
			s.resize(ctx, p, m.Resize)
		}
		if err != nil {
			s.Log.Debug("a command does not take its input", "error", err)
		}
	}
}

func (s *Server) resize(ctx context.Context, p engine.Process, size *carav1.TerminalSize) {
	if err := p.Resize(ctx, engine.Size{Rows: int(size.GetRows()), Columns: int(size.GetColumns())}); err != nil {
		s.Log.Debug("a terminal keeps its size", "error", err)
	}
}
