package apiserver

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Headers between the gateway and the services. What a gRPC client sends or makes of them is its own affair.
const (
	headerStatus  = "x-cara-http-status"
	headerIfMatch = "x-cara-if-match"
)

// answerCreated makes the REST answer a 201.
func answerCreated(ctx context.Context) error { return answerStatus(ctx, 201) }

func answerStatus(ctx context.Context, code int) error {
	return grpc.SetHeader(ctx, metadata.Pairs(headerStatus, strconv.Itoa(code)))
}

// ifMatch is the resourceVersion that a change insists on: the object's own, or REST's If-Match.
func ifMatch(ctx context.Context, resourceVersion string) string {
	if resourceVersion != "" {
		return resourceVersion
	}
	for _, v := range metadata.ValueFromIncomingContext(ctx, headerIfMatch) {
		return strings.Trim(strings.TrimPrefix(v, "W/"), `"`)
	}
	return ""
}
