package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/apiserver/rest"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestRESTNeverQuotesASecret: the answer goes to the caller, and from there to the log of a pipeline.
func TestRESTNeverQuotesASecret(t *testing.T) {
	for _, body := range []string{
		`{"stringData":{"a":hunter2}}`, `{"stringData":"hunter2"}`, `{"stringData":{"a":["hunter2"]}}`, `{"data":{"a":"hunter2!"}}`, `{"hunter2":"x"}`,
		`{"stringData":{"a":"hunter2\q"}}`, `{"stringData":{"a":"hunter2`, `{"stringData":{"hunter2":1}}`, `"hunter2"`, `{"type":{"hunter2":1}}`,
	} {
		for message, text := range map[proto.Message]string{
			&carav1.Secret{}: body, &carav1.ApplyRequest{}: `{"objects":[{"secret":` + body + `}]}`, &carav1.PutSecretRequest{}: `{"secret":` + body + `}`,
		} {
			err := rest.Marshaler{}.Unmarshal([]byte(text), message)
			if err == nil || strings.Contains(err.Error(), "unter2") || !strings.Contains(err.Error(), "line 1:") && !strings.Contains(err.Error(), "ends too early") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	if err := (rest.Marshaler{}).Unmarshal([]byte(`{"nmae":1}`), &carav1.Project{}); err == nil || !strings.Contains(err.Error(), "nmae") {
		t.Errorf("a project's error does not name the field: %v", err)
	}
}
