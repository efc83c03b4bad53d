package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// carryOut carries out a command. Writes may fail, and moves, backups and restores may be refused. The others are repeated until
// they are acknowledged.
func (w *dataRounds) carryOut(ctx context.Context, p *player, c command) error {
	p.begin(c)
	switch c.verb {
	case verbApply:
		w.tell(p.name, "%s as manifest %d", c, p.manifest)
		p.restarts = false // nothing is written in containers of older manifests
		return w.insist(ctx, c, func(ctx context.Context) error { return w.applyManifest(ctx, p, c) })
	case verbWrite:
		return w.writeFile(ctx, p, time.Duration(1000+p.r.IntN(6000))*time.Millisecond)
	case verbDrop:
		w.tell(p.name, "%s (reclaim %t)", c, p.reclaim)
		return w.insist(ctx, c, func(ctx context.Context) error {
			_, err := w.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: p.name, NoWait: true})
			return unlessNotFound(err)
		})
	case verbErase:
		w.tell(p.name, "%s", c)
		return w.insist(ctx, c, func(ctx context.Context) error {
			_, err := w.volumes.DeleteVolume(ctx, &carav1.DeleteRequest{Name: api.VolumeName(p.name, "data")})
			return unlessNotFound(err)
		})
	case verbMove:
		return w.move(ctx, p)
	case verbTake:
		return w.takeAway(ctx, p)
	case verbSave:
		return w.backUp(ctx, p, c)
	case verbBack:
		return w.restore(ctx, p, c)
	}
	return fmt.Errorf("unknown command %s", c)
}

func unlessNotFound(err error) error {
	if api.IsNotFound(err) {
		return nil
	}
	return err
}

// insist repeats a command until it is acknowledged: the server may be away, or the project may not be gone yet.
func (w *dataRounds) insist(ctx context.Context, c command, call func(context.Context) error) error {
	return testcluster.WaitFor(ctx, "the server acknowledges "+c.String(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return call(ctx)
	})
}

// otherNode is the node to move to, and the one that stays in service.
func otherNode(node string) string { return map[string]string{"n1": "n2", "n2": "n1"}[node] }

// move asks once for a move to the other node. It may be refused: the project may not run just now, or the node may be
// cordoned. If it is accepted, what follows happens while it is under way, and may end it.
func (w *dataRounds) move(ctx context.Context, p *player) error {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	got, err := w.projects.GetProject(short, &carav1.GetRequest{Name: p.name})
	to := otherNode(got.GetStatus().GetNodeRef())
	if err == nil && to != "" {
		_, err = w.projects.MoveProject(short, &carav1.MoveProjectRequest{Name: p.name, To: to})
	}
	if err == nil && to != "" {
		w.moves.Add(1)
	}
	w.tell(p.name, "move to %q: %.300v", to, err)
	return ctx.Err()
}

// takeAway removes the volume of a project that is gone from the engine, as somebody may do by hand. The next project of the
// name must not start without its data. Then everything is deleted.
func (w *dataRounds) takeAway(ctx context.Context, p *player) error {
	if err := w.AwaitGone(ctx, p.name); err != nil {
		return err
	}
	var v *carav1.Volume
	err := w.insist(ctx, command{verb: verbTake}, func(ctx context.Context) (err error) {
		v, err = w.volumes.GetVolume(ctx, &carav1.GetRequest{Name: api.VolumeName(p.name, "data")})
		return unlessNotFound(err)
	})
	if err != nil || !v.GetStatus().GetMade() || v.GetStatus().GetState() != api.VolumeRetained {
		return err
	}
	w.tell(p.name, "take its volume away from %s", v.GetStatus().GetNode())
	docker, err := testdocker.Client(w.nodes[v.GetStatus().GetNode()])
	if err != nil {
		return err
	}
	defer docker.Close()
	if err := docker.VolumeRemove(ctx, inEngine(v), false); err != nil {
		return err
	}
	if err := w.carryOut(ctx, p, command{verb: verbApply, mounts: true}); err != nil {
		return err
	}
	if err := w.staysDown(ctx, p); err != nil {
		return err
	}
	if err := w.carryOut(ctx, p, command{verb: verbDrop}); err != nil {
		return err
	}
	return w.carryOut(ctx, p, command{verb: verbErase})
}

// staysDown returns an error if a project runs. It ends when the project has failed or fits on no node, because its node is
// cordoned, and after a while.
func (w *dataRounds) staysDown(ctx context.Context, p *player) error {
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var ran error
	err := testcluster.WaitFor(short, "project "+p.name+" fails", func(ctx context.Context) error {
		got, err := w.projects.GetProject(ctx, &carav1.GetRequest{Name: p.name})
		if testcluster.Runs(got) {
			ran = fmt.Errorf("it runs on an empty volume, %v", got.GetStatus().GetVolumes())
			return testcluster.Fatal(ran)
		}
		waits := api.FindCondition(got.GetStatus().GetConditions(), api.CondScheduled).GetReason() == api.ReasonUnschedulable
		if err == nil && got.GetStatus().GetPhase() != api.PhaseFailed && !waits {
			err = fmt.Errorf("it is %s", testcluster.Summary(got))
		}
		return err
	})
	w.tell(p.name, "stays down: %.200v", err)
	return ran
}

// atStart writes which files are in the volume, then waits. The file gets its last name when it is complete.
const atStart = `f=$(mktemp "/witness/$PROJECT.$MANIFEST.XXXXXX") && ls -A /data >"$f" && mv "$f" "$f.done"; exec sleep 1h`

func (w *dataRounds) applyManifest(ctx context.Context, p *player, c command) error {
	service := &carav1.Service{
		Name: "tools", Image: []string{testimage.Busybox, otherImage}[c.image], Command: []string{"sh", "-c", atStart}, Init: true, StopGracePeriod: "1s",
		Env: []*carav1.EnvVar{{Name: "PROJECT", Value: p.name}, {Name: "MANIFEST", Value: strconv.Itoa(p.manifest)}},
	}
	spec := &carav1.ProjectSpec{Services: []*carav1.Service{service}}
	if c.mounts {
		spec.Backup = &carav1.Backup{SecretRef: p.name}
		reclaim := map[bool]string{false: api.ReclaimRetain, true: api.ReclaimDelete}[c.reclaim]
		spec.Volumes = []*carav1.ProjectVolume{{Name: "data", Type: api.VolumeManaged, Reclaim: reclaim}, {Name: "witness", Type: api.VolumeHost, Host: "witness"}}
		service.VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "witness", MountPath: "/witness"}}
	}
	resp, err := w.applier.Apply(ctx, &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(&carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: p.name}, Spec: spec,
	})}})
	if err != nil {
		return err
	}
	switch r := resp.GetResults()[0]; r.GetAction() {
	case api.ApplyCreated, api.ApplyConfigured, api.ApplyUnchanged:
		return nil
	default:
		return fmt.Errorf("it is %v", r)
	}
}

// inVolume writes a file, only in a container of the newest manifest, and only into a volume.
const inVolume = `[ "$MANIFEST" = "$0" ] && grep -q " /data " /proc/mounts && printf %s "$2" >"/data/$1" && sync "/data/$1"`

// writeFile tries to write a file for a while. The project may not run just now.
func (w *dataRounds) writeFile(ctx context.Context, p *player, tries time.Duration) error {
	value := strconv.FormatUint(p.r.Uint64(), 36)
	short, cancel := context.WithTimeout(ctx, tries)
	defer cancel()
	err := testcluster.WaitFor(short, "the write is acknowledged", func(ctx context.Context) error {
		if err := w.restarted(ctx, p); err != nil {
			return err
		}
		_, err := w.exec(ctx, p.name, "sh", "-c", inVolume, strconv.Itoa(p.manifest), p.file(), value)
		return err
	})
	if err == nil {
		p.acknowledge(value)
		w.writes.Add(1)
		w.tell(p.name, "wrote %s", p.file())
	} else {
		w.tell(p.name, "did not write %s: %.300s", p.file(), err)
	}
	return ctx.Err()
}

// exec runs a command in a project's container and returns its output. It wants exit code 0.
func (w *dataRounds) exec(ctx context.Context, project string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	stream, err := w.projects.Exec(ctx)
	if err != nil {
		return "", err
	}
	if err := stream.Send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: &carav1.ExecStart{Name: project, Command: argv}}}); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	var out, complaint strings.Builder
	for {
		m, err := stream.Recv()
		if err != nil {
			return "", err
		}
		out.Write(m.GetStdout())
		complaint.Write(m.GetStderr())
		if end, ok := m.GetMessage().(*carav1.ExecResponse_ExitCode); ok {
			if end.ExitCode != 0 {
				return "", fmt.Errorf("exit code %d: %s", end.ExitCode, &complaint)
			}
			return out.String(), nil
		}
	}
}

// fault makes one thing go wrong, cordons or drains a node, or does nothing.
func (w *dataRounds) fault(ctx context.Context, r *rand.Rand) error {
	node := []string{"n1", "n2"}[r.IntN(2)]
	before, away := time.Duration(r.IntN(2000))*time.Millisecond, time.Duration(r.IntN(1000))*time.Millisecond
	kind, victim := r.IntN(9), r.Uint64()
	pass(ctx, before)
	switch kind {
	case 0, 1:
		w.tell("fault", "kill the agent of %s for %s", node, away)
		if err := w.Agents[node].Kill(); err != nil {
			return err
		}
		pass(ctx, away)
		return w.RestartAgent(node)
	case 2:
		w.tell("fault", "kill the server for %s", away)
		if err := w.Server.Kill(); err != nil {
			return err
		}
		pass(ctx, away)
		return w.StartServer(ctx)
	case 3:
		w.tell("fault", "kill the server and the agent of %s for %s", node, away)
		if err := errors.Join(w.Server.Kill(), w.Agents[node].Kill()); err != nil {
			return err
		}
		pass(ctx, away)
		return errors.Join(w.RestartAgent(node), w.StartServer(ctx))
	case 4:
		return w.killContainer(ctx, node, victim)
	case 5:
		w.tell("fault", "kill the engine of n2 for %s", away)
		start := w.stopEngine(w.second, "-KILL") //nolint:contextcheck // the test has it
		pass(ctx, away)
		start()
		return nil
	case 6:
		return nil
	case 7:
		w.tell("fault", "drain %s with its data, uncordon %s", node, otherNode(node))
		_, err := w.Ctl(ctx, "", "drain", node, "--move-data", "--timeout", "1s") // it goes on when the command has given up
		return errors.Join(w.cordon(ctx, "uncordon", otherNode(node)), err)
	}
	w.tell("fault", "cordon %s, uncordon %s", node, otherNode(node))
	return errors.Join(w.cordon(ctx, "uncordon", otherNode(node)), w.cordon(ctx, "cordon", node))
}

// pass lets time pass, so that faults come at random moments of what is under way.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (w *dataRounds) cordon(ctx context.Context, verb, node string) error {
	r, err := w.Ctl(ctx, "", verb, node)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s %s: %+v", verb, node, r)
	}
	return err
}

// killContainer kills one of the containers of a node, if any runs.
func (w *dataRounds) killContainer(ctx context.Context, node string, choice uint64) error {
	held, err := w.Held(ctx, w.nodes[node], "")
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(held.Containers, func(c container.Summary) bool { return c.State != container.StateRunning })
	if len(all) == 0 {
		return nil
	}
	victim := all[choice%uint64(len(all))]
	w.tell("fault", "kill the container %s on %s", strings.Join(victim.Names, ","), node)
	docker, err := testdocker.Client(w.nodes[node])
	if err != nil {
		return err
	}
	defer docker.Close()
	_ = docker.ContainerKill(ctx, victim.ID, "KILL") // it may have ended
	return nil
}
