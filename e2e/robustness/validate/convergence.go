package validate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testequal"
)

// Law waits until the projects of a source are exactly those that the newest push declares, with its images, and each of them
// runs.
func Law(ctx context.Context, c *testcluster.Cluster, source string, last model.Push) error {
	projects, err := c.Projects()
	if err != nil {
		return err
	}
	if _, err := c.AwaitSource(ctx, source, "has applied "+last.Commit, func(s *carav1.Source) bool {
		return s.GetStatus().GetAppliedRevision() == last.Commit
	}); err != nil {
		return err
	}
	return testcluster.WaitFor(ctx, "the projects of source "+source+" are what git declares", func(ctx context.Context) error {
		list, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{Owner: api.PrefixSource + source})
		if err != nil {
			return err
		}
		return lawful(list.GetItems(), last.Declared)
	})
}

func lawful(projects []*carav1.Project, declared map[string]string) error {
	var errs []error
	there := map[string]bool{}
	for _, p := range projects {
		name := p.GetMetadata().GetName()
		there[name] = true
		image, wanted := declared[name]
		switch {
		case !wanted:
			errs = append(errs, fmt.Errorf("%s is %s, and git does not declare it", name, p.GetStatus().GetPhase()))
		case p.GetSpec().GetServices()[0].GetImage() != image:
			errs = append(errs, fmt.Errorf("%s has the image %s, git says %s", name, p.GetSpec().GetServices()[0].GetImage(), image))
		case p.GetStatus().GetPhase() == api.PhaseFailed: // nothing changes it any more
			errs = append(errs, testcluster.Fatal(fmt.Errorf("%s is %s", name, testcluster.Summary(p))))
		case !testcluster.Runs(p):
			errs = append(errs, fmt.Errorf("%s is %s", name, testcluster.Summary(p)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if !there[name] {
			errs = append(errs, fmt.Errorf("%s is missing, and git declares it", name))
		}
	}
	return errors.Join(errs...)
}

// Engine waits until an engine has what the assignments of its node say: every container has an owner, none is there twice, and
// all data is there.
func Engine(ctx context.Context, c *testcluster.Cluster, node, host string) error {
	labels, err := c.Labels(ctx)
	if err != nil {
		return err
	}
	conn, err := c.Conn()
	if err != nil {
		return err
	}
	_, err = testequal.Await(ctx, testequal.Node{
		Host: host, Cluster: labels[api.LabelCluster], Name: node,
		Volumes: func(ctx context.Context) ([]*carav1.Volume, error) {
			list, err := carav1.NewVolumeServiceClient(conn).ListVolumes(ctx, &carav1.ListVolumesRequest{})
			return list.GetItems(), err
		},
	}, func(ctx context.Context) ([]*carav1.Project, error) {
		list, err := carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{})
		return list.GetItems(), err
	})
	return err
}
