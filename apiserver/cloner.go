package apiserver

import (
	"fmt"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// loopCloner copies the messages between a loop and the server, so that neither sees the other's changes. The messages of a
// watch are immutable on both sides and are shared, so a watch of a thousand objects copies nothing.
type loopCloner struct{ inprocgrpc.ProtoCloner }

// Copy copies in to out.
func (c loopCloner) Copy(out, in any) error {
	if _, ok := in.(*carav1.WatchResponse); ok {
		return shareCloner{}.Copy(out, in)
	}
	return c.ProtoCloner.Copy(out, in)
}

// Clone returns a copy of in.
func (c loopCloner) Clone(in any) (any, error) {
	if _, ok := in.(*carav1.WatchResponse); ok {
		return in, nil
	}
	return c.ProtoCloner.Clone(in)
}

// shareCloner shares messages instead of copying them. It is for the REST gateway, which makes each request for one call
// and only encodes the answer.
type shareCloner struct{}

// Copy makes out share the fields of in.
func (shareCloner) Copy(out, in any) error {
	to, okTo := out.(proto.Message)
	msg, okIn := in.(proto.Message)
	if !okTo || !okIn {
		return fmt.Errorf("copy a %T to a %T: not messages", in, out)
	}
	r := to.ProtoReflect()
	proto.Reset(to)
	msg.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		r.Set(f, v)
		return true
	})
	return nil
}

// Clone returns in.
func (shareCloner) Clone(in any) (any, error) { return in, nil }
