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

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

var errNoDocker = errors.New("there is no docker on the PATH")

// swarmImage is what the image is called there. A swarm asks the registry for an image that it has, and waits long for the
// answer of one that it cannot reach: this one refuses at once.
const swarmImage = "localhost:1/kv:v1"

// swarm is an engine of its own that is made a swarm of one: the engine that others share never is.
type swarm struct {
	second *testdocker.Second
	dir    string
}

// openSwarm starts the engine. Where this machine gives none, the error is testdocker.ErrNoSecond or errNoDocker.
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
	if _, err := s.docker(ctx, "tag", testimage.KV, swarmImage); err != nil {
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

// write makes the one file of all stacks of a shape, and returns its path.
func (s *swarm) write(of shape) (string, error) {
	file := filepath.Join(s.dir, fmt.Sprintf("stack-%d.yaml", of.services))
	var b strings.Builder
	b.WriteString("version: \"3.8\"\nservices:\n")
	for _, service := range of.names() {
		fmt.Fprintf(&b, "  %s: {image: %q}\n", service, swarmImage)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return "", fmt.Errorf("write stack file: %w", err)
	}
	return file, nil
}

func (s *swarm) contestant() contestant {
	return contestant{
		column: bySwarm,
		up: func(ctx context.Context, of shape, names []string) error {
			file, err := s.write(of)
			if err != nil {
				return err
			}
			err = each(len(names), atOnce, func(i int) error {
				_, err := s.docker(ctx, "stack", "deploy", "--resolve-image", "never", "--compose-file", file, names[i])
				return err
			})
			return errors.Join(err, s.containers(ctx, len(names)*of.services))
		},
		down: func(ctx context.Context, _ shape, names []string) error {
			err := each(len(names), atOnce, func(i int) error {
				_, err := s.docker(ctx, "stack", "rm", names[i])
				return err
			})
			return errors.Join(err, s.containers(ctx, 0))
		},
	}
}
