package testregistry

import (
	"context"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/internal/test/testdocker"
)

func contextWithin(t *testing.T, patience time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), patience)
}

func removeImage(t *testing.T, host, ref string) {
	docker, err := testdocker.Client(host)
	if err != nil {
		t.Error(err)
		return
	}
	defer docker.Close()
	_, err = docker.ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{Force: true})
	if err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}
