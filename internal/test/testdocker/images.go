package testdocker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// Images loads the fixture images with these references (none: all) into the engine at host.
func Images(tb testing.TB, host string, refs ...string) {
	tb.Helper()
	err := LoadImages(tb.Context(), host, refs...)
	if errors.Is(err, testimage.ErrNoBusybox) {
		testneed.Missing(tb, "%v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// LoadImages is Images for programs. It skips an image that the engine already has.
func LoadImages(ctx context.Context, host string, refs ...string) error {
	fixtures, err := testimage.Lookup(refs...)
	if err != nil {
		return err
	}
	docker, err := Client(host)
	if err != nil {
		return err
	}
	defer docker.Close()
	for _, fixture := range fixtures {
		if err := load(ctx, docker, fixture); err != nil {
			return fmt.Errorf("load image %s into %s: %w", fixture.Ref, host, err)
		}
	}
	return nil
}

func load(ctx context.Context, docker *client.Client, fixture testimage.Fixture) error {
	content, err := fixture.Content()
	if err != nil {
		return err
	}
	have, err := docker.ImageInspect(ctx, fixture.Ref)
	if err == nil && have.Config != nil && have.Config.Labels[testimage.ContentLabel] == content {
		return nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	image, err := fixture.Build(ctx)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(fixture.Ref)
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(tarball.Write(tag, image, writer)) }()
	response, err := docker.ImageLoad(ctx, reader, client.ImageLoadWithQuiet(true))
	if err != nil {
		return errors.Join(err, reader.Close())
	}
	defer response.Body.Close()
	// The engine is done when its answer ends. The answer contains errors as messages, so check the image.
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	_, err = docker.ImageInspect(ctx, fixture.Ref)
	return err
}
