package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// compose runs docker-compose as a person would.
type compose struct{ binary, dir, host string }

func (c compose) run(ctx context.Context, project string, args ...string) error {
	args = append([]string{"--project-name", project, "--file", filepath.Join(c.dir, project+".yaml")}, args...)
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.host, "HOME="+c.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker-compose %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// write makes a project's file. Its network has a subnet of its own, since Docker's own pools end at about 30.
func (c compose) write(project, subnet string, s shape) error {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, service := range s.names() {
		fmt.Fprintf(&b, "  %s: {image: %q, pull_policy: never}\n", service, testimage.KV)
	}
	fmt.Fprintf(&b, "networks:\n  default:\n    ipam: {config: [{subnet: %s}]}\n", subnet)
	if err := os.WriteFile(filepath.Join(c.dir, project+".yaml"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write compose file: %w", err)
	}
	return nil
}

// contestant runs so many docker-compose at a time as the bare engine is asked for projects.
func (c compose) contestant() contestant {
	return contestant{
		column: byCompose,
		up: func(ctx context.Context, s shape, names []string) error {
			return each(len(names), atOnce, func(i int) error {
				if err := c.write(names[i], subnet(i), s); err != nil {
					return err
				}
				return c.run(ctx, names[i], "up", "--detach")
			})
		},
		down: func(ctx context.Context, _ shape, names []string) error {
			return each(len(names), atOnce, func(i int) error { return c.run(ctx, names[i], "down", "--volumes") })
		},
	}
}
