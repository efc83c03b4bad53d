package ports

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A frame is a datagram on a connection between agents: its length in two bytes, then the datagram. It can be empty.
const (
	// maxDatagram is the largest datagram of UDP over IPv4, in bytes. Larger ones are dropped.
	maxDatagram = 65507
	// frameHeader is the size of the length.
	frameHeader = 2
)

// frameMemory is memory for one frame, with one byte more, so that a datagram that is too long is noticed.
type frameMemory = [frameHeader + maxDatagram + 1]byte

// frames is memory that sessions share. An idle session has none.
var frames = sync.Pool{New: func() any { return new(frameMemory) }} //nolint:gochecknoglobals // memory that sessions share

// frameOf returns a frame with a copy of a datagram, which has at most maxDatagram bytes.
func frameOf(datagram []byte) []byte {
	frame := make([]byte, frameHeader, frameHeader+len(datagram))
	binary.BigEndian.PutUint16(frame, uint16(len(datagram)))
	return append(frame, datagram...)
}

// readFrames calls use for each frame until the connection ends. The frame is valid during the call only. An end within a frame
// is io.ErrUnexpectedEOF.
func readFrames(conn io.Reader, use func(frame []byte)) error {
	in := bufio.NewReaderSize(conn, 512) // small, because an idle session keeps it; most of a long datagram is read past it
	for {
		header, err := in.Peek(frameHeader) // without memory for a frame while the connection is idle
		if err != nil {
			if errors.Is(err, io.EOF) && len(header) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return unlessEOF(err)
		}
		if err := readFrame(in, use); err != nil {
			return err
		}
	}
}

// readFrame reads a frame whose first bytes have arrived.
func readFrame(in io.Reader, use func(frame []byte)) error {
	memory := frames.Get().(*frameMemory)
	defer frames.Put(memory)
	if _, err := io.ReadFull(in, memory[:frameHeader]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(memory[:frameHeader]))
	if n > maxDatagram {
		return fmt.Errorf("%w: %d bytes", errTooLong, n)
	}
	if _, err := io.ReadFull(in, memory[frameHeader:frameHeader+n]); errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	use(memory[:frameHeader+n])
	return nil
}

// receive calls use for each datagram of a connected socket, as a frame, until the socket is closed. The frame is valid during
// the call only. If a service does not listen, its machine answers with an error; a later datagram may find it again.
func receive(conn *net.UDPConn, use func(frame []byte)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		err := receiveOne(raw, use)
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
}

// receiveOne waits for a datagram. It takes memory only when there is one. A datagram that is too long is dropped.
func receiveOne(raw syscall.RawConn, use func(frame []byte)) error {
	var memory *frameMemory
	var n int
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		memory = frames.Get().(*frameMemory)
		n, failed = syscall.Read(int(fd), memory[frameHeader:])
		if errors.Is(failed, syscall.EAGAIN) || errors.Is(failed, syscall.EINTR) {
			frames.Put(memory)
			memory = nil
			return errors.Is(failed, syscall.EINTR)
		}
		return true
	})
	if memory == nil {
		return err // nil after an interruption
	}
	defer frames.Put(memory)
	switch {
	case err != nil:
		return err
	case failed != nil:
		return os.NewSyscallError("read", failed)
	case n <= maxDatagram:
		binary.BigEndian.PutUint16(memory[:frameHeader], uint16(n))
		use(memory[:frameHeader+n])
	}
	return nil
}
