package api

import (
	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// MaxItems is the bound that the contract puts on a list, 0 if there is none. It can be checked before the elements
// are looked at.
func MaxItems(fd protoreflect.FieldDescriptor) int {
	rules, ok := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	if !ok {
		return 0
	}
	return int(rules.GetRepeated().GetMaxItems())
}

// bounds finds lists that are too long and counts the elements of all the others, status left out: nothing else is
// checked of an object whose size alone makes checking expensive.
func (e *fieldErrors) bounds(path string, m protoreflect.Message, size *int) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := join(path, fd.JSONName())
		switch {
		case fd.IsMap() || at == "status":
		case fd.IsList():
			n := v.List().Len()
			if most := MaxItems(fd); most > 0 && n > most {
				e.add(at, "has %d entries, at most %d are allowed; take some away", n, most)
				return true
			}
			*size += n
			for i := 0; i < n && fd.Message() != nil; i++ {
				e.bounds(elem(at, i), v.List().Get(i).Message(), size)
			}
		case fd.Message() != nil:
			e.bounds(at, v.Message(), size)
		}
		return true
	})
}
