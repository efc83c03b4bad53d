package testgit

import (
	"context"
	"fmt"
	"net"
	"os/exec"
)

// Up listens again on the same address. It does nothing if the server is up.
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
	// The server runs until Down, longer than this call.
	living, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.listener, s.stop = listener, stop
	s.running.Go(func() { s.accept(living, listener) })
	return nil
}

// Down refuses new connections and closes the open ones.
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
			return // closed by Down
		}
		s.mu.Lock()
		s.connections++
		s.mu.Unlock()
		s.running.Go(func() { s.handle(ctx, conn) })
	}
}

// handle starts an sshd for the connection, like inetd.
func (s *SSH) handle(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	socket, err := tcp.File()
	if err != nil {
		return // the client has disconnected
	}
	defer socket.Close()
	command := exec.CommandContext(ctx, s.program, "-i", "-f", s.config)
	command.Stdin, command.Stdout = socket, socket
	// sshd's exit status is about the client's session, and the client knows it.
	_ = command.Run()
}
