package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
	"github.com/caravanserai/cara/e2e/robustness/traffic"
	"github.com/caravanserai/cara/e2e/robustness/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// source is the name of the source that the pushes go to.
const source = "robust"

// runs counts the runs with nodes: they share an engine's names and networks with other runs, also of other processes.
var runs atomic.Int64 //nolint:gochecknoglobals // an engine is shared, too

// nodes are the nodes of a run, with the traffic that makes containers.
type nodes struct {
	hosts    map[string]string // DOCKER_HOST by node
	pusher   *traffic.Pusher
	operator *traffic.Operator
	sampler  *validate.Sampler
}

// nodesOf starts the nodes of the scenario, and a git server with a repository that a source follows.
func (r *run) nodesOf(t *testing.T) {
	t.Helper()
	if r.Nodes == 0 {
		return
	}
	n, number := &nodes{hosts: map[string]string{}}, runs.Add(1)
	r.nodes = n
	var names []string
	for i := range r.Nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
		r.agent(t, names[i], testdocker.Engine(t), fmt.Sprintf("10.211.%d.0/21", 8*((2*(os.Getpid()+int(number))+i)%32)))
	}
	id := strconv.FormatInt(int64(os.Getpid()), 36) + strconv.FormatInt(number, 36)
	root := t.TempDir()
	server := testgit.ServeHTTP(t, root, false)
	repo := testgit.New(t, root, source)
	n.pusher = &traffic.Pusher{Recorder: r.recorder, Repo: repo.Repo, Prefix: "g" + id + "-", Projects: 4, Random: r.random(2000), Pause: 2 * time.Second}
	n.operator = &traffic.Operator{
		Servers: r.addresses(t), ID: 2001, Prefix: "w" + id + "-", Git: "g" + id + "-", Projects: 4, Nodes: names, Random: r.random(2001), Pause: 300 * time.Millisecond,
	}
	n.sampler = &validate.Sampler{Cluster: r.first, Engines: n.hosts}
	r.follow(t, server.RepoURL(source))
}

// follow makes the source.
func (r *run) follow(t *testing.T, url string) {
	t.Helper()
	sources, err := r.first.Sources()
	r.must(t, err)
	all := int32(100)
	_, err = sources.PutSource(t.Context(), &carav1.PutSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: source},
		Spec: &carav1.SourceSpec{
			Git: &carav1.GitSource{Url: url, Ref: &carav1.GitRef{Branch: testgit.Branch}}, Interval: "1s", PruneLimit: &all, AllowEmpty: true,
			Adopt: "Always", // people also apply projects that git does not declare at that moment, and it may declare them later
		},
	}})
	r.must(t, err)
}

// agent starts one behind a link of its own.
func (r *run) agent(t *testing.T, name, host, pool string) {
	t.Helper()
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2, testimage.KV)
	servers := strings.Join(r.fronts, ",")
	if servers == "" {
		servers = "http://" + r.link(t, "agent "+name, r.first.Address())
	}
	r.nodes.hosts[name] = host
	_, err := r.first.StartAgent(testcluster.Agent{Name: name, DockerHost: host, Server: servers, Pool: pool})
	r.must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.must(t, r.first.AwaitNode(ctx, name, api.NodeReady))
}

// schedulable ends what the traffic has drained.
func (n *nodes) schedulable(ctx context.Context, r *run) error {
	client, err := r.first.Nodes()
	if err != nil {
		return err
	}
	for name := range n.hosts {
		if err := testcluster.WaitFor(ctx, "node "+name+" is schedulable", func(ctx context.Context) error {
			return traffic.Draining(ctx, client, name, false)
		}); err != nil {
			return err
		}
	}
	return nil
}

// converge ends the overrides of the traffic, and waits until git has what it says and the engines have what is assigned.
func (n *nodes) converge(ctx context.Context, r *run) error {
	projects, err := r.first.Projects()
	if err != nil {
		return err
	}
	if err := n.schedulable(ctx, r); err != nil {
		return err
	}
	for i := range n.pusher.Projects {
		name := fmt.Sprintf("%s%d", n.pusher.Prefix, i)
		if err := testcluster.WaitFor(ctx, "no override of "+name+" is in force", func(ctx context.Context) error {
			_, err := projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
			if api.IsNotFound(err) {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
	}
	pushes := r.recorder.History().Pushes
	last := model.Push{}
	if len(pushes) > 0 {
		last = pushes[len(pushes)-1]
	}
	errs := []error{validate.Law(ctx, r.first, source, last)}
	for node, host := range n.hosts {
		errs = append(errs, validate.Engine(ctx, r.first, node, host))
	}
	return errors.Join(errs...)
}
