package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caravanserai/cara/internal/testimage"
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
func (c compose) write(project, subnet string) error {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, s := range services {
		fmt.Fprintf(&b, "  %s: {image: %q, pull_policy: never}\n", s, testimage.KV)
	}
	fmt.Fprintf(&b, "networks:\n  default:\n    ipam: {config: [{subnet: %s}]}\n", subnet)
	if err := os.WriteFile(filepath.Join(c.dir, project+".yaml"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write compose file: %w", err)
	}
	return nil
}

func (c compose) up(ctx context.Context, project string) error {
	return c.run(ctx, project, "up", "--detach")
}

func (c compose) down(ctx context.Context, project string) error {
	return c.run(context.WithoutCancel(ctx), project, "down", "--volumes")
}

func (c compose) measure(ctx context.Context, o options, out *table, name string) error {
	var downs []time.Duration
	ups, err := series("Compose: "+three, o.runs, func(run int) (up time.Duration, err error) {
		project := fmt.Sprintf("%sx%d", name, run)
		if err := c.write(project, subnet(0)); err != nil {
			return 0, err
		}
		start := time.Now()
		err = c.up(ctx, project)
		up = time.Since(start)
		start = time.Now()
		err = errors.Join(err, c.down(ctx, project))
		downs = append(downs, time.Since(start))
		return up, err
	})
	if err != nil {
		return err
	}
	out.times(three, byCompose, ups)
	out.times(remove, byCompose, downs)

	downs = nil
	ups, err = series(fmt.Sprintf("Compose: %s, %d at a time", manyUp, atOnce), o.fewer(), func(run int) (up time.Duration, err error) {
		project := func(i int) string { return fmt.Sprintf("%sm%dx%d", name, run, i) }
		for i := range o.many {
			if err := c.write(project(i), subnet(i)); err != nil {
				return 0, err
			}
		}
		start := time.Now()
		err = each(o.many, atOnce, func(i int) error { return c.up(ctx, project(i)) })
		up = time.Since(start)
		start = time.Now()
		err = errors.Join(err, each(o.many, atOnce, func(i int) error { return c.down(ctx, project(i)) }))
		downs = append(downs, time.Since(start))
		return up, err
	})
	if err != nil {
		return err
	}
	out.times(manyUp, byCompose, ups)
	out.times(manyDown, byCompose, downs)
	return nil
}
