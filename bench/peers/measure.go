package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testgit"
)

// single is the project of what is measured of Cara alone.
var single = shape{projects: 1, services: 3} //nolint:gochecknoglobals // never changed

// contestants apply all projects as one request.
func (c *cluster) contestants(s shape) []contestant {
	way := func(column string, fan bool) contestant {
		return contestant{
			column: column,
			up: func(ctx context.Context, s shape, names []string) error {
				return errors.Join(c.create(ctx, s, fan, names...), c.running(ctx, names...))
			},
			down: func(ctx context.Context, _ shape, names []string) error { return c.deleteAll(ctx, names...) },
		}
	}
	all := []contestant{way(byCara, false)}
	if s.services > 1 {
		all = append(all, way(byCaraFan, true))
	}
	return all
}

// data is what a volume adds to the start and the end of a project.
func (f *field) data(ctx context.Context, o options, out *table) error {
	c := f.cara
	var all []contestant
	for column, volume := range map[string]string{byCara: "", byCaraTemp: api.VolumeEphemeral, byCaraData: api.VolumeManaged} {
		all = append(all, contestant{
			column: column,
			up: func(ctx context.Context, s shape, names []string) error {
				return errors.Join(c.createWith(ctx, s, false, volume, names...), c.running(ctx, names...))
			},
			down: func(ctx context.Context, _ shape, names []string) error { return c.deleteAll(ctx, names...) },
		})
	}
	return contest(ctx, all, f.names, shape{1, 1}, o.runs, out)
}

// sweep takes away what a run that failed has left, so that the agent, which still runs, has nothing to keep alive.
func (c *cluster) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	all, err := c.projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
	if err != nil {
		return fmt.Errorf("list projects: %w", err)
	}
	var names []string
	for _, p := range all.GetItems() {
		names = append(names, p.GetMetadata().GetName())
	}
	return errors.Join(c.deleteAll(ctx, names...), c.AwaitNothing(ctx, c.host, ""))
}

// alone is one project: apply by caractrl, a killed container, delete.
func (c *cluster) alone(ctx context.Context, o options, out *table) (err error) {
	var ups, floors, backs, downs []time.Duration
	floor := c.name + "floor"
	w := ways()[2]
	err = c.engine.up(ctx, w, shape{1, 1}, floor, subnet(0))
	defer func() {
		err = errors.Join(err, c.engine.down(context.WithoutCancel(ctx), w, shape{1, 1}, floor))
	}()
	if err != nil {
		return err
	}
	for run := range o.runs {
		name := fmt.Sprintf("%sy%d", c.name, run)
		start := time.Now()
		var r testcluster.Result
		if r, err = c.Ctl(ctx, manifest(name), "apply", "-f", "-", "--wait"); err != nil {
			return err
		}
		ups = append(ups, time.Since(start))
		if r.Code != 0 {
			return fmt.Errorf("caractrl ended with %d: %s", r.Code, r.Stderr)
		}
		var took time.Duration
		for _, step := range []struct {
			into *[]time.Duration
			do   func() (time.Duration, error)
		}{
			{&floors, func() (time.Duration, error) { return c.engine.back(ctx, floor+"."+single.names()[0]) }},
			{&backs, func() (time.Duration, error) { return c.killed(ctx, name) }},
			{&downs, func() (time.Duration, error) { return c.deleted(ctx, name) }},
		} {
			if took, err = step.do(); err != nil {
				return err
			}
			*step.into = append(*step.into, took)
		}
		fmt.Fprintf(os.Stderr, "run %d: up %.3f s, killed and back %.3f s (engine %.3f s), down %.3f s   load %s\n", run+1,
			ups[run].Seconds(), backs[run].Seconds(), floors[run].Seconds(), downs[run].Seconds(), load())
	}
	out.times("1 x 3 by caractrl apply --wait", byCara, ups)
	out.times("1 x 3, DELETE answers \"deleted\"", byCara, downs)
	out.times("a killed container is back", inSequence, floors)
	out.times("a killed container is back", byCara, backs)
	return nil
}

// killed kills the first service's container, and waits until the engine has started one for it again.
func (c *cluster) killed(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var start time.Time
	err := c.engine.event(ctx, "start", api.LabelProject+"="+name, func() error {
		start = time.Now()
		return c.engine.kill(ctx, "cara-"+name+"."+single.names()[0])
	})
	took := time.Since(start)
	if err == nil {
		err = c.running(ctx, name)
	}
	return took, err
}

// deleted deletes a project, and waits until it is gone from the server and, as is looked up later, from the engine.
func (c *cluster) deleted(ctx context.Context, name string) (time.Duration, error) {
	start := time.Now()
	_, err := c.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name})
	err = errors.Join(err, c.gone(ctx, name))
	took := time.Since(start)
	held, heldErr := c.Held(ctx, c.host, name)
	if heldErr == nil && !held.Empty() {
		heldErr = fmt.Errorf("project %s is gone, but the engine holds\n%s", name, held)
	}
	return took, errors.Join(err, heldErr)
}

// deleteAll deletes projects side by side, and waits until they are gone.
func (c *cluster) deleteAll(ctx context.Context, names ...string) error {
	err := each(len(names), 16, func(i int) error {
		_, err := c.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: names[i], NoWait: true})
		if api.IsNotFound(err) {
			err = nil
		}
		return err
	})
	return errors.Join(err, c.gone(ctx, names...))
}

// pushes is the same project coming from a directory and from a repository.
func (c *cluster) pushes(ctx context.Context, o options, out *table) error {
	at := filepath.Join(c.Dir, "manifests")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	root := filepath.Join(c.Dir, "git")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	repo, err := testgit.Create(ctx, root, "platform")
	if err != nil {
		return err
	}
	server, err := testgit.StartHTTP(ctx, root, false)
	if err != nil {
		return err
	}
	push := func(path, content string) error {
		if err := repo.Write(path, content); err != nil {
			return err
		}
		if _, err := repo.Commit(ctx, "Add "+path); err != nil {
			return err
		}
		return repo.Push(ctx)
	}
	if err := push("README.md", "nothing that Cara reads"); err != nil {
		return errors.Join(err, server.Close())
	}
	git := &carav1.GitSource{Url: server.RepoURL("platform")}
	for _, w := range []struct {
		source, row string
		spec        *carav1.SourceSpec
		declare     func(name string) error
	}{
		{
			"dir", "a file in a directory -> running", &carav1.SourceSpec{Dir: &carav1.DirSource{Path: at}},
			func(name string) error {
				if err := os.WriteFile(filepath.Join(at, name+".yaml"), []byte(manifest(name)), 0o644); err != nil {
					return fmt.Errorf("declare %s: %w", name, err)
				}
				return nil
			},
		},
		{
			"hint", "git push, then a word (as a webhook) -> running", &carav1.SourceSpec{Git: git, Path: "hint", Interval: "1h"},
			func(name string) error {
				err := push("hint/"+name+".yaml", manifest(name))
				if err == nil {
					_, err = c.sources.ReconcileSource(ctx, &carav1.GetRequest{Name: "hint"})
				}
				return err
			},
		},
		{
			"poll", "git push, polled every 2 s -> running", &carav1.SourceSpec{Git: git, Path: "poll", Interval: "2s"},
			func(name string) error { return push("poll/"+name+".yaml", manifest(name)) },
		},
	} {
		if w.spec.Path != "" {
			err = push(w.spec.Path+"/README.md", "nothing that Cara reads")
		}
		if err == nil {
			err = c.pushed(ctx, o, out, w.source, w.row, w.spec, w.declare)
		}
		if err != nil {
			return errors.Join(err, server.Close())
		}
	}
	return server.Close()
}

// pushed declares one project after the other in one source; then the source goes, and its projects with it.
func (c *cluster) pushed(ctx context.Context, o options, out *table, source, row string, spec *carav1.SourceSpec, declare func(name string) error) error {
	spec.OnDelete, spec.AllowEmpty = "Delete", true
	if _, err := c.sources.CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: source}, Spec: spec,
	}}); err != nil {
		return fmt.Errorf("create source %s: %w", source, err)
	}
	if _, err := c.AwaitSource(ctx, source, "was read", func(s *carav1.Source) bool { return s.GetStatus().GetSnapshot() != nil }); err != nil {
		return err
	}
	var names []string
	ups, err := series("Cara: "+row, o.runs, func(run int) (time.Duration, error) {
		name := fmt.Sprintf("%s%s%d", c.name, source, run)
		names = append(names, name)
		start := time.Now()
		err := errors.Join(declare(name), c.running(ctx, name))
		return time.Since(start), err
	})
	if err != nil {
		return err
	}
	out.times(row, byCara, ups)
	if _, err := c.sources.DeleteSource(ctx, &carav1.DeleteRequest{Name: source}); err != nil {
		return fmt.Errorf("delete source %s: %w", source, err)
	}
	return c.gone(ctx, names...)
}

// crowd looks at what many containers cost while they only run.
func (c *cluster) crowd(ctx context.Context, o options, out *table) error {
	of := shape{projects: 20, services: 5}
	names := make([]string, of.projects)
	for i := range names {
		names[i] = fmt.Sprintf("%sm%d", c.name, i)
	}
	err := errors.Join(c.create(ctx, of, false, names...), c.running(ctx, names...))
	if err == nil {
		err = c.used(ctx, o, out, fmt.Sprintf("%d running containers", of.projects*of.services))
	}
	return errors.Join(err, c.deleteAll(context.WithoutCancel(ctx), names...))
}
