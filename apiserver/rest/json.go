package rest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/status"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	contentJSON = "application/json"
	// ContentProblem is the content type of a problem (RFC 9457).
	ContentProblem = "application/problem+json"
	// ContentStream is the content type of a stream: one JSON object a line.
	ContentStream = "application/x-ndjson"
)

// Marshaler encodes the JSON of the API: camelCase, no empty fields, and no unknown fields in requests. The JSON of a
// project is encoded once for each revision and kept in the cache.
type Marshaler struct{ cache *state.Cache }

var _ runtime.Marshaler = Marshaler{}

// Marshal encodes an answer, or one message of a stream, which is a line.
func (m Marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case *carav1.Project:
		return m.project(v)
	case *carav1.ListProjectsResponse:
		return m.projects(v)
	case *carav1.ProjectEvent:
		return m.projectEvent(v)
	case proto.Message:
		return compact(v)
	case map[string]any: // the gateway wraps each message of a stream; our lines have no wrapper
		return m.Marshal(v["result"])
	case map[string]proto.Message: // an error in the middle of a stream
		st, ok := v["error"].(*status.Status)
		if !ok {
			return nil, fmt.Errorf("marshal a %T", v)
		}
		problem, err := compact(api.ProblemOf(grpcstatus.ErrorProto(st)))
		return append(append([]byte(`{"error":`), problem...), '}'), err
	default:
		return nil, fmt.Errorf("marshal a %T: not a message", v)
	}
}

// compact returns a message's JSON without the random spaces of protojson.
func compact(m proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", state.KindName(m), err)
	}
	var out bytes.Buffer
	out.Grow(len(raw))
	if err := json.Compact(&out, raw); err != nil {
		return nil, fmt.Errorf("marshal %s: %w", state.KindName(m), err)
	}
	return out.Bytes(), nil
}

// project returns a project's JSON. It comes from the cache if the project is the cached object, without added live state.
func (m Marshaler) project(p *carav1.Project) ([]byte, error) {
	e := m.cache.View().Entry(api.KindProject, p.GetMetadata().GetName())
	if e == nil || p.GetMetadata().GetResourceVersion() != api.FormatRevision(e.Rev) || p.GetStatus().GetLastSeen() != nil {
		return compact(p)
	}
	return e.JSON(func() ([]byte, error) { return compact(p) })
}

func (m Marshaler) projects(list *carav1.ListProjectsResponse) ([]byte, error) {
	meta, err := compact(list.GetMetadata())
	if err != nil {
		return nil, err
	}
	items := make([][]byte, len(list.GetItems()))
	size := len(meta) + 96
	for i, p := range list.GetItems() {
		if items[i], err = m.project(p); err != nil {
			return nil, err
		}
		size += len(items[i]) + 1
	}
	out := append(make([]byte, 0, size), `{"apiVersion":"`+api.APIVersion+`","kind":"`+api.ListKind(api.KindProject)+`","items":[`...)
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	out = append(out, `],"metadata":`...)
	return append(append(out, meta...), '}'), nil
}

func (m Marshaler) projectEvent(e *carav1.ProjectEvent) ([]byte, error) {
	if e.GetObject() == nil {
		return compact(e)
	}
	object, err := m.project(e.GetObject())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"type":%q,"object":`, e.GetType())
	out.Write(object)
	if e.GetResourceVersion() != "" {
		fmt.Fprintf(&out, `,"resourceVersion":%q`, e.GetResourceVersion())
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Unmarshal decodes a request's body. v is a message, or a pointer to one that may be nil.
func (Marshaler) Unmarshal(data []byte, v any) error {
	data = withoutServerTimes(data)
	if m, ok := v.(proto.Message); ok {
		return unmarshal(data, m)
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Pointer {
		return fmt.Errorf("unmarshal into a %T: not a message", v)
	}
	if p.Elem().IsNil() {
		p.Elem().Set(reflect.New(p.Elem().Type().Elem()))
	}
	m, ok := reflect.TypeAssert[proto.Message](p.Elem())
	if !ok {
		return fmt.Errorf("unmarshal into a %T: not a message", v)
	}
	return unmarshal(data, m)
}

// withoutServerTimes removes `createdAt` and `updatedAt` from an object, its metadata and the objects of an apply. Older
// clients send back the answers of an older server, but only the server sets these times.
func withoutServerTimes(data []byte) []byte {
	if !bytes.Contains(data, []byte(`"createdAt"`)) && !bytes.Contains(data, []byte(`"updatedAt"`)) {
		return data
	}
	var body map[string]json.RawMessage
	if json.Unmarshal(data, &body) != nil {
		return data // the decoder reports the error
	}
	delete(body, "createdAt")
	delete(body, "updatedAt")
	for _, key := range []string{"metadata", "project", "node", "source", "secret"} {
		if inner, ok := body[key]; ok {
			body[key] = withoutServerTimes(inner)
		}
	}
	var objects []json.RawMessage
	if json.Unmarshal(body["objects"], &objects) == nil {
		for i := range objects {
			objects[i] = withoutServerTimes(objects[i])
		}
		body["objects"], _ = json.Marshal(objects) // cannot fail: the parts are valid JSON
	}
	out, err := json.Marshal(body)
	if err != nil {
		return data
	}
	return out
}

// unmarshal decodes a message. protojson quotes input that it cannot parse, so for a body that may contain a Secret's value
// the error has only the position.
func unmarshal(data []byte, m proto.Message) error {
	err := protojson.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	switch m.(type) {
	case *carav1.Secret, *carav1.CreateSecretRequest, *carav1.PutSecretRequest:
	case *carav1.ApplyRequest:
		if !bytes.Contains(data, []byte("ecret")) {
			return err
		}
	default:
		return err
	}
	return fmt.Errorf("the body is not a Secret in JSON %s; what stands there is not shown", cmp.Or(jsonPlace.FindString(err.Error()), "(it ends too early)"))
}

// jsonPlace matches a position in an error of protojson.
var jsonPlace = regexp.MustCompile(`\(line \d+:\d+\)`)

// NewDecoder returns a decoder for one body, whose size boundBody has limited.
func (m Marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return io.EOF // the gateway reads this as an empty body
		}
		return m.Unmarshal(data, v)
	})
}

// NewEncoder returns an encoder for messages.
func (m Marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		data, err := m.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}

// ContentType returns the content type of an answer.
func (Marshaler) ContentType(any) string { return contentJSON }

// StreamContentType returns the content type of a stream: one line of JSON for each message.
func (Marshaler) StreamContentType(any) string { return ContentStream }
