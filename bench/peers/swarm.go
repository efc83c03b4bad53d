package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/internal/testcluster"
	"github.com/caravanserai/cara/internal/testdocker"
	"github.com/caravanserai/cara/internal/testimage"
)

var errNoDocker = errors.New("there is no docker on the PATH")

// swarm is an engine of its own that is made a swarm of one: the engine that others share never is.
type swarm struct {
	second *testdocker.Second
	dir    string
}

// measureSwarm does without, where this machine gives no second engine.
func (o options) measureSwarm(ctx context.Context, dir string, out *table, name string) error {
	s, err := openSwarm(ctx, dir)
	if errors.Is(err, testdocker.ErrNoSecond) || errors.Is(err, errNoDocker) {
		fmt.Fprintln(os.Stderr, "without Swarm:", err)
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.measure(ctx, o, out, name), s.close(context.WithoutCancel(ctx)))
}

func openSwarm(ctx context.Context, dir string) (*swarm, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, errNoDocker
	}
	second, err := testdocker.StartSecond(ctx, "b"+strconv.FormatInt(int64(os.Getpid()), 36))
	if err != nil {
		return nil, err
	}
	s := &swarm{second, dir}
	if err := testdocker.LoadImages(ctx, second.Host, testimage.KV); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	if _, err := s.docker(ctx, "swarm", "init", "--advertise-addr", second.Address); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func (s *swarm) close(ctx context.Context) error { return s.second.Drop(ctx) }

func (s *swarm) docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+s.second.Host, "HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// containers waits until so many containers run, or until none is left in whatever state.
func (s *swarm) containers(ctx context.Context, want int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list := []string{"ps", "--quiet", "--filter", "label=com.docker.swarm.service.id"}
	if want == 0 {
		list = append(list, "--all")
	}
	return testcluster.WaitFor(ctx, fmt.Sprintf("%d containers run", want), func(ctx context.Context) error {
		out, err := s.docker(ctx, list...)
		if have := len(strings.Fields(out)); err == nil && have != want {
			err = fmt.Errorf("%d do", have)
		}
		return err
	})
}

func (s *swarm) measure(ctx context.Context, o options, out *table, name string) error {
	file := filepath.Join(s.dir, "stack.yaml")
	var b strings.Builder
	b.WriteString("version: \"3.8\"\nservices:\n")
	for _, service := range services {
		fmt.Fprintf(&b, "  %s: {image: %q}\n", service, testimage.KV)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write stack file: %w", err)
	}
	for _, w := range []struct {
		up, down    string
		count, runs int
	}{{three, remove, 1, o.runs}, {manyUp, manyDown, o.many, o.fewer()}} {
		var downs []time.Duration
		ups, err := series("Swarm: "+w.up, w.runs, func(run int) (up time.Duration, err error) {
			stack := func(i int) string { return fmt.Sprintf("%sx%dx%d", name, run, i) }
			start := time.Now()
			err = each(w.count, atOnce, func(i int) error {
				_, err := s.docker(ctx, "stack", "deploy", "--resolve-image", "never", "--compose-file", file, stack(i))
				return err
			})
			if err == nil {
				err = s.containers(ctx, w.count*len(services))
			}
			up = time.Since(start)
			if err != nil {
				return 0, err
			}
			start = time.Now()
			err = each(w.count, atOnce, func(i int) error {
				_, err := s.docker(ctx, "stack", "rm", stack(i))
				return err
			})
			err = errors.Join(err, s.containers(ctx, 0))
			downs = append(downs, time.Since(start))
			return up, err
		})
		if err != nil {
			return err
		}
		out.times(w.up, bySwarm, ups)
		out.times(w.down, bySwarm, downs)
	}
	return nil
}
