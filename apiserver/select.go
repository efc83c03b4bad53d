package apiserver

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/caravanserai/cara/api"
)

// labelMatch reads a label selector as Kubernetes has them; the empty one matches everything.
func labelMatch[T proto.Message](selector string) (func(T) bool, error) {
	if selector == "" {
		return func(T) bool { return true }, nil
	}
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, api.Invalid("the request", api.Field("labelSelector", "is no label selector such as `app=web,tier in (a,b)`: %v", err))
	}
	return func(m T) bool { return sel.Matches(labels.Set(api.Meta(m).GetLabels())) }, nil
}
