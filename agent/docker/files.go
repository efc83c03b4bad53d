package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/agent"
)

// CopyFiles implements agent.Containers: one archive, unpacked at the root.
func (e *Engine) CopyFiles(ctx context.Context, id string, files []agent.File) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		header := &tar.Header{
			Name: strings.TrimPrefix(path.Clean(f.Path), "/"), Size: int64(len(f.Content)), Mode: f.Mode, Typeflag: tar.TypeReg,
		}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("pack file %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return fmt.Errorf("pack file %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.WorkTimeout)
	defer cancel()
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	err = docker.CopyToContainer(ctx, id, "/", &archive, container.CopyToContainerOptions{})
	if err != nil && strings.Contains(err.Error(), "read-only") {
		return fmt.Errorf("copy files into container %.12s: %w: the service is readOnly; put its files under a volume, or drop readOnly: %w",
			id, agent.ErrInvalid, err)
	}
	return wrap(err, "copy files into container %.12s", id)
}
