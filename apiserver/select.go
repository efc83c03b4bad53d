package apiserver

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// labelMatch reads a label selector as Kubernetes has them; the empty one matches everything.
func labelMatch[T proto.Message](selector string) (func(T) bool, error) {
	if selector == "" {
		return func(T) bool { return true }, nil
	}
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, api.Invalid("the request", fieldError("labelSelector", "is no label selector such as `app=web,tier in (a,b)`: %v", err))
	}
	return func(m T) bool { return sel.Matches(labels.Set(api.Meta(m).GetLabels())) }, nil
}

func fieldError(field, format string, args ...any) []*carav1.FieldError {
	return []*carav1.FieldError{{Field: field, Message: fmt.Sprintf(format, args...)}}
}

func fieldIndex(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
