package testgit

import (
	"context"
	"fmt"
	"net"
	"os/exec"
)

// Up listens again on the same address. It is no error when the server is up.
func (s *SSH) Up(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("start sshd: %w", err)
	}
	s.address = listener.Addr().String()
	// The server lives until Down, not as long as the call that brought it up.
	living, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.listener, s.stop = listener, stop
	s.running.Go(func() { s.accept(living, listener) })
	return nil
}

// Down refuses connections from now on and cuts those that are open.
func (s *SSH) Down() error {
	s.mu.Lock()
	listener, stop := s.listener, s.stop
	s.listener = nil
	s.mu.Unlock()
	if listener == nil {
		return nil
	}
	stop()
	err := listener.Close()
	s.running.Wait()
	return err
}

func (s *SSH) accept(ctx context.Context, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // Down has closed it
		}
		s.mu.Lock()
		s.connections++
		s.mu.Unlock()
		s.running.Go(func() { s.handle(ctx, conn) })
	}
}

// handle gives the connection to an sshd of its own, as inetd would.
func (s *SSH) handle(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	socket, err := tcp.File()
	if err != nil {
		return // the client has gone
	}
	defer socket.Close()
	command := exec.CommandContext(ctx, s.program, "-i", "-f", s.config)
	command.Stdin, command.Stdout = socket, socket
	// sshd's exit status speaks of the client's session, which the client has seen for itself.
	_ = command.Run()
}
