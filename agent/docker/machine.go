package docker

import (
	"cmp"
	"context"

	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// Info implements engine.Machine.
func (e *connection) Info(ctx context.Context) (engine.Info, error) {
	return ask(ctx, e, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) (engine.Info, error) {
		info, err := docker.Info(ctx)
		if err != nil {
			return engine.Info{}, wrap(err, "ask the engine about its machine")
		}
		return engine.Info{
			Platform: info.OSType + "/" + goArch(info.Architecture), Version: info.ServerVersion, Hostname: info.Name,
			CPUs: info.NCPU, Memory: info.MemTotal, Root: info.DockerRootDir,
		}, nil
	})
}

// goArch converts the kernel's name of an architecture to the one in image platforms.
func goArch(machine string) string {
	return cmp.Or(map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}[machine], machine)
}
