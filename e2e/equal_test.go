package e2e

import (
	"context"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testequal"
)

// equal is how a fault ends: the engine of a node equals the assignments, and nothing else there carries our labels. It
// returns the ids of the containers by `project.service`.
func (w *testCluster) equal(node, host string) map[string]string {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	labels, err := w.Labels(ctx)
	w.must(err)
	client, err := w.Projects()
	w.must(err)
	conn, err := w.Conn()
	w.must(err)
	volumes := func(ctx context.Context) ([]*carav1.Volume, error) {
		list, err := carav1.NewVolumeServiceClient(conn).ListVolumes(ctx, &carav1.ListVolumesRequest{})
		return list.GetItems(), err
	}
	ids, err := testequal.Await(ctx, testequal.Node{Host: host, Cluster: labels[api.LabelCluster], Name: node, Volumes: volumes},
		func(ctx context.Context) ([]*carav1.Project, error) {
			list, err := client.ListProjects(ctx, &carav1.ListProjectsRequest{})
			return list.GetItems(), err
		})
	w.must(err)
	return ids
}

// calm says that a container still is the one that it was, and was not even restarted.
func (w *testCluster) calm(host, what, id, startedAt string) {
	w.Helper()
	if s := w.state(host, id); !s.Running || s.StartedAt != startedAt {
		w.Errorf("the container of %s was started at %s, and is %s since %s", what, startedAt, s.Status, s.StartedAt)
	}
}
