package dispatch

import (
	"slices"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// partSize limits one part of a message Routes, in bytes, unless a single host has more. While thousands of agents connect at the same
// moment, the server has a part of each of them in memory, and not all that it tells them.
const partSize = 8 << 10

// routeParts are encoded fields of messages Routes, in parts of at most about partSize. Parts that sessions share do not change any
// more.
type routeParts [][]byte

// add appends encoded fields to the last part, or to a new one if that is full.
func (p *routeParts) add(encoded []byte) {
	last := len(*p) - 1
	if last < 0 || len((*p)[last])+len(encoded) > partSize {
		*p = append(*p, slices.Clone(encoded))
		return
	}
	(*p)[last] = append((*p)[last], encoded...)
}

// send sends a message and further fields of it. The fields are encoded once for all sessions. They are sent as unknown fields, as they
// are: the encoding of two messages one after the other is the encoding of both merged. An agent that cannot join parts gets one
// message. sending must be held.
func (f *routeFeed) send(msg *carav1.Routes, fields routeParts) error {
	if !f.me.can(api.CapabilityRoutesInParts) {
		fields = routeParts{slices.Concat(fields...)}
	}
	for len(fields) > 1 {
		part := &carav1.Routes{More: true}
		part.ProtoReflect().SetUnknown(fields[0])
		if err := f.sendRoutes(part); err != nil {
			return err
		}
		fields = fields[1:]
	}
	if len(fields) > 0 && len(fields[0]) > 0 {
		msg.ProtoReflect().SetUnknown(fields[0])
	}
	return f.sendRoutes(msg)
}

func (f *routeFeed) sendRoutes(msg *carav1.Routes) error {
	return f.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Routes{Routes: msg}})
}
