package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// Operator does what people do to projects that run: applies them, restarts and deletes them, overrides what git says, and
// drains nodes. Its calls may fail at any time. The state at the end is what counts.
type Operator struct {
	Servers  Servers
	ID       int
	Prefix   string // of the names of its own projects
	Git      string // prefix of the names of the projects in git
	Projects int    // how many there are at most, of each
	Nodes    []string
	Random   *rand.Rand
	Pause    time.Duration

	line *line
	done map[string]int
}

// Run acts until ctx ends.
func (o *Operator) Run(ctx context.Context) error {
	var err error
	if o.line, err = o.Servers.dial(o.ID); err != nil {
		return err
	}
	o.done = map[string]int{}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortCall)
		what, err := o.once(bounded)
		cancel()
		if err == nil {
			o.done[what]++
		} else {
			o.line.next()
		}
		pause(ctx, time.Duration(o.Random.Int64N(2*int64(o.Pause))))
	}
	return o.line.close()
}

// Done returns how many calls of each kind succeeded, after Run.
func (o *Operator) Done() map[string]int { return o.done }

func (o *Operator) once(ctx context.Context) (string, error) {
	projects := carav1.NewProjectServiceClient(o.line.conn())
	own := fmt.Sprintf("%s%d", o.Prefix, o.Random.IntN(o.Projects))
	git := fmt.Sprintf("%s%d", o.Git, o.Random.IntN(o.Projects))
	switch n := o.Random.IntN(100); {
	case n < 20 && len(o.Nodes) > 1:
		return "drain", o.drain(ctx)
	case n < 45:
		return "apply", o.apply(ctx, own, nil)
	case n < 55:
		_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: own})
		return "delete", err
	case n < 65:
		_, err := projects.RestartProject(ctx, &carav1.RestartProjectRequest{Name: own})
		return "restart", err
	case n < 75:
		return "override", o.apply(ctx, git, terms())
	case n < 80:
		_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: git, Override: terms()})
		return "override deletion", err
	default:
		_, err := projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: git, Clear: true})
		return "end override", err
	}
}

// terms are those of a short override.
func terms() *carav1.OverrideTerms {
	return &carav1.OverrideTerms{Reason: "robustness", For: durationpb.New(5 * time.Second)}
}

func (o *Operator) apply(ctx context.Context, name string, override *carav1.OverrideTerms) error {
	image := images()[o.Random.IntN(len(images()))]
	if len(o.Nodes) > 1 {
		image = images()[o.Random.IntN(2)] // data stays on its node
	}
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "main", Image: image, StopGracePeriod: "1s"}}},
	}
	if image == testimage.KV {
		p.Spec.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}
		p.Spec.Volumes = []*carav1.ProjectVolume{{Name: "data", Type: "Managed"}}
	}
	answer, err := carav1.NewApplyServiceClient(o.line.conn()).Apply(ctx, &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(p)}, Override: override})
	for _, r := range answer.GetResults() {
		if r.GetProblem() != nil {
			err = fmt.Errorf("apply %s: %s", name, r.GetProblem().GetDetail())
		}
	}
	return err
}

// drain drains one node and makes all others schedulable.
func (o *Operator) drain(ctx context.Context) error {
	chosen := o.Random.IntN(len(o.Nodes) + 1) // or none
	for i, name := range o.Nodes {
		if err := Draining(ctx, carav1.NewNodeServiceClient(o.line.conn()), name, i == chosen); err != nil {
			return err
		}
	}
	return nil
}

// Draining sets whether a node is drained.
func Draining(ctx context.Context, nodes carav1.NodeServiceClient, name string, draining bool) error {
	n, err := nodes.GetNode(ctx, &carav1.GetRequest{Name: name})
	if err != nil {
		return err
	}
	if n.Spec == nil {
		n.Spec = &carav1.NodeSpec{}
	}
	if n.GetSpec().GetDraining() == draining {
		return nil
	}
	n.Spec.Draining, n.Spec.Unschedulable = draining, draining
	_, err = nodes.PutNode(ctx, &carav1.PutNodeRequest{Node: n})
	return err
}
