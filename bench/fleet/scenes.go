package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testgit"
)

// scene is one thing that happens to a fleet. play returns a note for the table.
type scene struct {
	name  string
	first bool // it is always played, because the others need what it makes
	play  func(f *fleet, ctx context.Context) (note string, err error)
}

// scenes returns all scenes in the order in which they are played.
func scenes() []scene {
	return []scene{
		{"join", true, (*fleet).joinAll},
		{"creates", true, (*fleet).createLoose},
		{"first sync", true, (*fleet).firstSync},
		{"rest", false, (*fleet).rest},
		{"rollouts", false, (*fleet).rollouts},
		{"push one", false, (*fleet).pushOne},
		{"push all", false, (*fleet).pushAll},
		{"reconnect", false, (*fleet).reconnect},
		{"rack", false, (*fleet).rack},
		{"polls", false, (*fleet).polls},
	}
}

// play plays the scenes.
func (f *fleet) play(ctx context.Context) ([]row, error) {
	say("%d nodes and %d projects", f.options.nodes, f.projects)
	var rows []row
	for _, s := range scenes() {
		if !s.first && f.only != "" && !slices.Contains(strings.Split(f.only, ","), s.name) {
			continue
		}
		r, err := f.measure(ctx, s)
		if err != nil {
			return rows, err
		}
		say("%s: %s, %s of the server's processor time, %d MiB, %s", s.name, seconds(r.Took), seconds(r.CPU), r.ResidentMiB, r.Note)
		rows = append(rows, r)
	}
	return rows, nil
}

// joinAll lets all nodes join and connect.
func (f *fleet) joinAll(ctx context.Context) (string, error) {
	made, err := carav1.NewTokenServiceClient(f.conn).CreateToken(ctx, &carav1.CreateTokenRequest{Token: &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "fleet"}, Role: api.RoleJoin, UsesLeft: int32(f.options.nodes) + 1,
	}})
	if err != nil {
		return "", fmt.Errorf("make a join token: %w", err)
	}
	f.nodes = make([]*node, f.options.nodes)
	err = each(ctx, len(f.nodes), patientClients, func(ctx context.Context, i int) error {
		var err error
		f.nodes[i], err = f.joinNode(ctx, i, made.GetSecret())
		return err
	})
	if err != nil {
		f.nodes = slices.DeleteFunc(f.nodes, func(n *node) bool { return n == nil })
		return "", err
	}
	for _, n := range f.nodes {
		n.start(ctx)
	}
	return "", f.until(ctx, "all nodes are Ready", f.connected)
}

// connected reports whether all nodes are Ready and have got the complete state. mu is held.
func (f *fleet) connected() bool {
	return len(f.ready) == len(f.nodes) && !slices.ContainsFunc(f.nodes, func(n *node) bool { return !n.synced.Load() })
}

// loose is the number of projects that belong to no source. Their changes come through the API.
func (f *fleet) loose() int { return max(1, min(f.projects/10, 1000)) }

func looseName(i int) string { return fmt.Sprintf("r-%d", i) }

func (f *fleet) looseProject(i int, image string) *carav1.Project {
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: looseName(i)},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}},
	}
	if f.ingress {
		p.Spec.Ingress = []*carav1.Ingress{{Name: "web", Host: looseName(i), Target: &carav1.IngressTarget{Service: "web", Port: 80}}}
	}
	return p
}

// createLoose creates the projects that belong to no source, and waits until they run.
func (f *fleet) createLoose(ctx context.Context) (string, error) {
	client := carav1.NewProjectServiceClient(f.conn)
	began := time.Now()
	err := each(ctx, f.loose(), patientClients, func(ctx context.Context, i int) error {
		image := fmt.Sprintf("registry.example.com/loose:%d", i)
		f.begins(image)
		_, err := client.CreateProject(ctx, &carav1.CreateProjectRequest{Project: f.looseProject(i, image)})
		return err
	})
	if err != nil {
		return "", err
	}
	note := fmt.Sprintf("%d projects, %.0f creates/s", f.loose(), float64(f.loose())/time.Since(began).Seconds())
	return note, f.until(ctx, "the projects run", func() bool { return len(f.running) >= f.loose() })
}

// firstSync creates the sources of the other projects, and waits until all of them run.
func (f *fleet) firstSync(ctx context.Context) (string, error) {
	names := make([]string, max(1, f.projects-f.loose()))
	for i := range names {
		names[i] = fmt.Sprintf("p-%d", i)
	}
	if err := f.repositories(ctx, names); err != nil {
		return "", err
	}
	took, cpu, err := f.cost(func() error {
		for _, r := range f.repos {
			if err := f.source(ctx, r.source, r.source, "", "1h"); err != nil {
				return err
			}
		}
		return f.until(ctx, "all projects run", func() bool { return len(f.running) >= len(names)+f.loose() })
	})
	return fmt.Sprintf("%d projects run %s after their sources were created, with %s of processor time", len(names), seconds(took), seconds(cpu)), err
}

// rest waits while nothing happens but heartbeats.
func (f *fleet) rest(ctx context.Context) (string, error) {
	return "heartbeats only", testcluster.Pause(ctx, f.long)
}

// rollouts changes projects at a rate.
func (f *fleet) rollouts(ctx context.Context) (string, error) {
	client := carav1.NewApplyServiceClient(f.conn)
	tick := time.NewTicker(time.Duration(float64(time.Second) / f.rate))
	defer tick.Stop()
	n := max(1, int(f.rate*f.long.Seconds()))
	err := each(ctx, n, 4*patientClients, func(ctx context.Context, i int) error {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		image := fmt.Sprintf("registry.example.com/rollout:%d", i)
		f.begins(image)
		resp, err := client.Apply(ctx, &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(f.looseProject(i%f.loose(), image))}})
		if err == nil && resp.GetResults()[0].GetProblem() != nil {
			err = fmt.Errorf("apply: %s", resp.GetResults()[0].GetProblem().GetDetail())
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if n > f.loose() { // a later change may have replaced one before it was sent
		return fmt.Sprintf("%d changes", n), nil
	}
	return fmt.Sprintf("%d changes", n), f.until(ctx, "all changes are assigned", func() bool { return len(f.changes) == 0 })
}

// pushOne changes one project in the first repository, five times.
func (f *fleet) pushOne(ctx context.Context) (string, error) {
	const pushes = 5
	r := f.repos[0]
	var cpu time.Duration
	for i := range pushes {
		image := fmt.Sprintf("registry.example.com/one:%d", i)
		if err := f.declare(ctx, r, image, r.projects[0]); err != nil {
			return "", err
		}
		_, spent, err := f.pushed(ctx, r, image+"-0")
		if err != nil {
			return "", err
		}
		cpu += spent
	}
	return fmt.Sprintf("1 of %d, %d times: %s of processor time each, from the hint to the assignment", len(r.projects), pushes, millis(cpu/pushes)), nil
}

// pushAll changes all projects in the first repository.
func (f *fleet) pushAll(ctx context.Context) (string, error) {
	r := f.repos[0]
	if err := f.declare(ctx, r, "registry.example.com/all:1", r.projects...); err != nil {
		return "", err
	}
	images := make([]string, len(r.projects))
	for i := range images {
		images[i] = fmt.Sprintf("registry.example.com/all:1-%d", i)
	}
	assigned, cpu, err := f.pushed(ctx, r, images...)
	if err != nil {
		return "", err
	}
	note := fmt.Sprintf("%d projects: assigned %s after the hint, with %s of processor time", len(images), seconds(assigned), seconds(cpu))
	return note, f.until(ctx, "all projects run again", func() bool { return len(f.running) >= f.loose()+f.inGit() })
}

func (f *fleet) inGit() int {
	n := 0
	for _, r := range f.repos {
		n += len(r.projects)
	}
	return n
}

// pushed tells the server to look at a repository, waits until its nodes have been told about the images, and returns what that costs.
func (f *fleet) pushed(ctx context.Context, r *repository, images ...string) (took, cpu time.Duration, err error) {
	for _, image := range images {
		f.begins(image)
	}
	return f.cost(func() error {
		if _, err := carav1.NewSourceServiceClient(f.conn).ReconcileSource(ctx, &carav1.GetRequest{Name: r.source}); err != nil {
			return err
		}
		return f.until(ctx, "the push is assigned", func() bool { return len(f.changes) == 0 })
	})
}

// reconnect cuts all connections at the same moment, as a restarted switch does.
func (f *fleet) reconnect(ctx context.Context) (string, error) {
	if err := each(ctx, len(f.nodes), len(f.nodes), func(_ context.Context, i int) error {
		f.nodes[i].stop()
		return nil
	}); err != nil {
		return "", err
	}
	took, cpu, err := f.cost(func() error {
		for _, n := range f.nodes {
			n.start(ctx)
		}
		return f.until(ctx, "all nodes are connected", f.connected)
	})
	return fmt.Sprintf("all %d nodes connected again after %s, with %s of processor time", len(f.nodes), seconds(took), seconds(cpu)), err
}

// rack lets a tenth of the nodes disappear until they are NotReady, and come back.
func (f *fleet) rack(ctx context.Context) (string, error) {
	lost := f.nodes[:max(1, len(f.nodes)/10)]
	began := time.Now()
	for _, n := range lost {
		n.stop()
	}
	if err := f.until(ctx, "the rack is NotReady", func() bool { return len(f.ready) <= len(f.nodes)-len(lost) }); err != nil {
		return "", err
	}
	gone := time.Since(began)
	began = time.Now()
	for _, n := range lost {
		n.start(ctx)
	}
	err := f.until(ctx, "the rack is back", f.connected)
	return fmt.Sprintf("%d nodes lost: NotReady after %s, all back %s after they came", len(lost), seconds(gone), seconds(time.Since(began))), err
}

// polledPath is the folder of a source that is polled. The folders are grouped, because the first reading of a source lists each folder
// above its own.
func polledPath(i int) string { return fmt.Sprintf("group-%d/none-%d", i/100, i) }

// polls adds sources that are polled each 30 s, and waits.
func (f *fleet) polls(ctx context.Context) (string, error) {
	repo, err := testgit.Create(ctx, f.git.root, "polled")
	if err != nil {
		return "", err
	}
	for i := range f.sources {
		if err := repo.Write(polledPath(i)+"/README.md", "nothing that Cara reads"); err != nil {
			return "", err
		}
	}
	if err := f.declare(ctx, &repository{Repo: repo}, firstImage); err != nil {
		return "", err
	}
	if err := each(ctx, f.sources, patientClients, func(ctx context.Context, i int) error {
		return f.source(ctx, fmt.Sprintf("poll-%d", i), "polled", polledPath(i), "30s")
	}); err != nil {
		return "", err
	}
	if err := f.until(ctx, "the sources have been read", func() bool { return len(f.read) >= f.sources+len(f.repos) }); err != nil {
		return "", err
	}
	took, cpu, err := f.cost(func() error { return testcluster.Pause(ctx, f.long) })
	return fmt.Sprintf("%d sources, each polled every 30 s: %.1f %% of a core after their first reading", f.sources, 100*cpu.Seconds()/took.Seconds()), err
}
