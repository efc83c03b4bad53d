package volume

import (
	"io"
	"os"
	"syscall"
)

// PipeCommand is the hidden command of the agent's program that rsync starts to reach the other side. It runs Pipe.
const PipeCommand = "volume-pipe"

// socketFD is the file descriptor of the agent's socket in rsync, and in the program that it starts.
const socketFD = 3

// Pipe connects standard input and output with the socket that the agent gave to rsync. rsync can only talk to a remote side
// through a program that it starts. Pipe runs in a process of its own and ends with either side.
func Pipe() error {
	socket := os.NewFile(socketFD, "socket")
	if socket == nil {
		return os.ErrInvalid
	}
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(socket, os.Stdin)
		if err == nil {
			err = syscall.Shutdown(socketFD, syscall.SHUT_WR)
		}
		if err != nil {
			ended <- err
		}
	}()
	go func() {
		_, err := io.Copy(os.Stdout, socket)
		ended <- err
	}()
	return <-ended
}
