package volume

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Operations of a connection between two agents. Each connection is for one operation on one volume.
const (
	// opCopy connects rsync on both sides.
	opCopy = "copy"
	// opList walks the copy, and returns each entry.
	opList = "list"
	// opRemove removes entries of the copy that rsync would not replace.
	opRemove = "remove"
)

// request is the first message of a connection.
type request struct {
	Operation string `json:"operation"`
	UID       string `json:"uid"`
	// Need is the space that the original occupies, in bytes.
	Need int64 `json:"need,omitempty"`
	// Paths to remove.
	Paths [][]byte `json:"paths,omitempty"`
}

// reply answers a request. After a reply to opCopy without an error, the connection has rsync's protocol; after one to
// opList, it has items.
type reply struct {
	Error string `json:"error,omitempty"`
	// Final is true for an error that will not go away by itself.
	Final bool `json:"final,omitempty"`
}

// item is a part of the reply to opList.
type item struct {
	Entry *Entry `json:"entry,omitempty"`
	// End is set in the last item.
	End *reply `json:"end,omitempty"`
}

// maxMessage is the maximum size of a message.
const maxMessage = 1 << 20

// writeMessage writes a message: its size and its JSON.
func writeMessage(w io.Writer, m any) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too large", len(data))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// readMessage reads a message, and nothing after it.
func readMessage(r io.Reader, m any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return fmt.Errorf("the other agent sent a message of %d bytes, which is too large", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(data, m); err != nil {
		return fmt.Errorf("the other agent sent a message that this one does not understand: %w", err)
	}
	return nil
}

// finalError is an error that will not go away by itself.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Final marks an error as one that will not go away by itself.
func Final(err error) error { return finalError{err} }

// final returns an error that will not go away by itself.
func final(format string, args ...any) error { return finalError{fmt.Errorf(format, args...)} }

// IsFinal reports whether an operation failed for a reason that will not go away by itself, so that a retry is pointless. A
// disk that cannot be read or written does not repair itself.
func IsFinal(err error) bool {
	_, ok := errors.AsType[finalError](err)
	return ok || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS)
}

// copyError means that rsync failed on one of the two nodes, and not because the connection between them broke.
type copyError struct{ error }

func (e copyError) Unwrap() error { return e.error }

// IsCopyError reports whether rsync failed for a reason that may be temporary, such as a file that changes while it is copied,
// but that no other node and no network causes.
func IsCopyError(err error) bool {
	_, ok := errors.AsType[copyError](err)
	return ok
}

// replyOf returns the reply with an error, or one without if it is nil.
func replyOf(err error) *reply {
	if err == nil {
		return &reply{}
	}
	return &reply{Error: err.Error(), Final: IsFinal(err)}
}

// err returns the error of a reply.
func (r *reply) err(node string) error {
	switch {
	case r.Error == "":
		return nil
	case r.Final:
		return final("node %s: %s", node, r.Error)
	}
	return fmt.Errorf("node %s: %s", node, r.Error)
}
