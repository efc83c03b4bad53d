package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// hashVersion begins every hash. Increase it when the encoding below changes: every container is then recreated once.
//
// A new field must not change the hash of specs that do not use it. The encoding writes only set fields, after eachDefault
// has removed defaults. So a new field is safe if its default is in that list.
const hashVersion = "v1:"

// Hash returns the canonical hash of a spec. It is equal for specs that differ only in spelling, explicit defaults or the
// order of maps. Name, labels, origin and everything else outside the spec are not included.
func Hash(s *carav1.ProjectSpec) string {
	return hashOf(bare(s))
}

// ServiceHash returns the hash of what one service's container depends on: the service, without its dependencies and update
// strategy, and the types of its volumes. It returns "" if the spec has no such service.
func ServiceHash(s *carav1.ProjectSpec, service string) string {
	s = bare(s)
	i := slices.IndexFunc(s.GetServices(), func(v *carav1.Service) bool { return v.GetName() == service })
	if i < 0 {
		return ""
	}
	svc := s.GetServices()[i]
	svc.DependsOn, svc.Update = nil, nil
	for _, f := range svc.GetFiles() {
		f.From = "" // the container depends on the content only
	}
	mounted := &carav1.ProjectSpec{Services: []*carav1.Service{svc}}
	for _, v := range s.GetVolumes() {
		if slices.ContainsFunc(svc.GetVolumeMounts(), func(m *carav1.VolumeMount) bool { return m.GetName() == v.GetName() }) {
			v.Reclaim = "" // the container does not depend on it
			mounted.Volumes = append(mounted.Volumes, v)
		}
	}
	slices.SortFunc(mounted.Volumes, func(a, b *carav1.ProjectVolume) int { return strings.Compare(a.GetName(), b.GetName()) })
	return hashOf(mounted)
}

// ClaimHash returns the hash of everything that a manifest declares for a project: spec, labels and annotations. The file,
// the commit and what the server adds are not included.
func ClaimHash(p *carav1.Project) string {
	return hashOf(&carav1.Project{
		Metadata: &carav1.ObjectMeta{
			Name:        p.GetMetadata().GetName(),
			Labels:      p.GetMetadata().GetLabels(),
			Annotations: p.GetMetadata().GetAnnotations(),
		},
		Spec: bare(p.GetSpec()),
	})
}

// bare returns a canonical clone without defaults.
func bare(s *carav1.ProjectSpec) *carav1.ProjectSpec {
	if s == nil {
		return &carav1.ProjectSpec{}
	}
	out := proto.CloneOf(s)
	canonSpec(out)
	eachDefault(out, empty, empty)
	return out
}

func hashOf(m proto.Message) string {
	e := encoder{out: make([]byte, 0, 1<<10)}
	e.message(m.ProtoReflect())
	sum := sha256.Sum256(e.out)
	return hashVersion + hex.EncodeToString(sum[:])
}

// encoder writes messages so that different messages have different bytes: fields by number, every value of variable size
// after its length, maps sorted by key.
type encoder struct {
	out []byte
	set []protoreflect.FieldDescriptor // the set fields of the message that is being written, after those of the messages around it
}

func (e *encoder) message(m protoreflect.Message) {
	around := len(e.set)
	for fields, i := m.Descriptor().Fields(), 0; i < fields.Len(); i++ {
		if fd := fields.Get(i); m.Has(fd) {
			e.set = append(e.set, fd)
		}
	}
	set := e.set[around:]
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	e.uint(uint64(len(set)))
	for _, fd := range set {
		e.uint(uint64(fd.Number()))
		e.field(fd, m.Get(fd))
	}
	e.set = e.set[:around]
}

func (e *encoder) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case fd.IsList():
		list := v.List()
		e.uint(uint64(list.Len()))
		for i := range list.Len() {
			e.value(fd, list.Get(i))
		}
	case fd.IsMap():
		keys := make([]string, 0, v.Map().Len())
		byKey := make(map[string]protoreflect.Value, v.Map().Len())
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			keys = append(keys, k.String())
			byKey[k.String()] = v
			return true
		})
		slices.Sort(keys)
		e.uint(uint64(len(keys)))
		for _, k := range keys {
			e.text(k)
			e.value(fd.MapValue(), byKey[k])
		}
	default:
		e.value(fd, v)
	}
}

func (e *encoder) value(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		e.message(v.Message())
	case protoreflect.StringKind:
		e.text(v.String())
	case protoreflect.BytesKind:
		e.uint(uint64(len(v.Bytes())))
		e.out = append(e.out, v.Bytes()...)
	case protoreflect.BoolKind:
		e.uint(map[bool]uint64{false: 0, true: 1}[v.Bool()])
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		e.uint(uint64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		e.uint(v.Uint())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		e.uint(math.Float64bits(v.Float()))
	case protoreflect.EnumKind:
		e.uint(uint64(int64(v.Enum())))
	default:
		panic("api: no canonical encoding for a field of kind " + fd.Kind().String())
	}
}

func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.out = append(e.out, s...)
}

func (e *encoder) uint(v uint64) { e.out = binary.BigEndian.AppendUint64(e.out, v) }
