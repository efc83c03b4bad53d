package ports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// maxHello limits the first message of another agent, in bytes.
	maxHello = 1024
	// helloPatience limits how long the first message may take.
	helloPatience = 10 * time.Second
)

// greet asks another agent for a service, and waits for its answer.
func greet(conn net.Conn, hello *carav1.PortConnection) error {
	message, err := proto.Marshal(hello)
	if err != nil {
		return err
	}
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(message)))
	if _, err := conn.Write(append(framed, message...)); err != nil {
		return fmt.Errorf("%w: %w", errNode, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("%w: %w", errNode, err)
	}
	if answer[0] == 0 {
		return nil
	}
	for _, r := range reasons {
		if r.answer == answer[0] {
			return fmt.Errorf("the agent of the project's node says: %w", r.err)
		}
	}
	return errNotReady // of a newer version
}

// readHello reads the first message of another agent.
func readHello(conn net.Conn) (*carav1.PortConnection, error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloPatience)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	if len(message) > maxHello {
		return nil, errors.New("the first message is too long")
	}
	if _, err := io.ReadFull(conn, message); err != nil {
		return nil, err
	}
	hello := &carav1.PortConnection{}
	if err := proto.Unmarshal(message, hello); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil { // it has ended meanwhile
		return nil, err
	}
	return hello, nil
}
