package e2e

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

const (
	// seedEnv repeats the choices of an earlier run.
	seedEnv = "CARA_ROUNDS_SEED"
	// roundsEnv is how many rounds there are.
	roundsEnv = "CARA_ROUNDS"
	// otherImage is another name of testimage.Busybox, for updates.
	otherImage = "busybox:rounds"

	roundProjects = 4
	// faultStream is the number of the first stream of random numbers for faults. Streams of projects have smaller numbers.
	faultStream = 1000
	// A settlement follows so many rounds.
	roundsSettle = 6
	// faultsPerRound is the largest number of faults for each round.
	faultsPerRound = 3
	// roundsPatience is how long the commands of roundsSettle rounds, and the settlement after them, may take.
	roundsPatience = 10 * time.Minute
)

// dataRounds is a cluster of two nodes with some projects, each of which has a Managed volume at /data.
type dataRounds struct {
	*testCluster
	nodes     map[string]string // engine by node
	witness   string            // where containers write which files they found in the volume when they started
	players   []*player
	second    *testdocker.Second // the engine of n2
	seed      uint64
	writes    atomic.Int64 // acknowledged ones
	moves     atomic.Int64 // accepted ones
	saves     atomic.Int64 // backups that succeeded
	restores  atomic.Int64 // successful ones
	starts    int          // of containers
	projects  carav1.ProjectServiceClient
	applier   carav1.ApplyServiceClient
	volumes   carav1.VolumeServiceClient
	beginning time.Time
}

// player carries out the commands of one project, one after the other.
type player struct {
	*ledger
	name     string
	r        *rand.Rand
	others   int  // restores for other projects
	restarts bool // on restored data, and was not seen to run there yet
}

// TestDataRounds: no acknowledged byte is lost, is in two places or is hidden by an empty volume, whatever happens to
// projects, agents, server and containers at the same time. Only a command whose purpose it is deletes data.
func TestDataRounds(t *testing.T) {
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	if given := os.Getenv(seedEnv); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rounds := often(1000, 50)
	if given := os.Getenv(roundsEnv); given != "" {
		var err error
		if rounds, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	w := newDataRounds(t, seed)
	t.Logf("%s=%d %s=%d repeats the choices", seedEnv, seed, roundsEnv, rounds)
	for round := 0; round < rounds && !t.Failed(); round += roundsSettle {
		w.play(round, min(roundsSettle, rounds-round))
		w.settle()
		if t.Failed() {
			t.Fatalf("after round %d with %s=%d", min(round+roundsSettle, rounds), seedEnv, seed)
		}
	}
	t.Logf("%d rounds in %s: %d acknowledged writes, %d moves, %d backups, %d restores, %d starts of containers", rounds, time.Since(w.beginning).Round(time.Second),
		w.writes.Load(), w.moves.Load(), w.saves.Load(), w.restores.Load(), w.starts)
	if w.writes.Load() == 0 || w.starts == 0 {
		t.Error("nothing was written, or nothing was started")
	}
}

func newDataRounds(t *testing.T, seed uint64) *dataRounds {
	testneed.Program(t, "restic", "restic")
	first := testdocker.Engine(t)
	t.Parallel()
	second := testdocker.SecondEngine(t) // which is killed now and then
	w := &dataRounds{
		testCluster: newWorld(t, options{listen: wildcard(t)}), nodes: map[string]string{"n1": first, "n2": second.Host},
		second: second, witness: t.TempDir(), seed: seed, beginning: time.Now(),
	}
	repositories := t.TempDir()
	flags := []string{"--host-volume", "witness=" + w.witness, "--backup-dir", repositories}
	port, err := testcluster.FreePort()
	w.must(err)
	w.pools["n1"] = <-pools
	w.engines = append(w.engines, first)
	w.startAgent(testcluster.Agent{
		Name: "n1", DockerHost: first, Pool: w.pools["n1"], Ingress: net.JoinHostPort(second.Gateway, port), Flags: flags,
	})
	w.agent("n2", second.Host, second, flags...)
	for _, host := range w.nodes {
		testdocker.Images(t, host, testimage.Busybox)
		docker, err := testdocker.Client(host)
		w.must(err)
		w.must(docker.ImageTag(t.Context(), testimage.Busybox, otherImage))
		w.must(docker.Close())
	}
	conn, err := w.Conn()
	w.must(err)
	w.projects, w.applier, w.volumes = carav1.NewProjectServiceClient(conn), carav1.NewApplyServiceClient(conn), carav1.NewVolumeServiceClient(conn)
	for n := range uint64(roundProjects) {
		w.players = append(w.players, &player{ledger: newLedger(), name: w.name(fmt.Sprintf("r%d", n)), r: rand.New(rand.NewPCG(seed, n+1))})
		w.backupSecret(w.players[n].name, repositories)
	}
	return w
}

// tell logs what happens, with its time.
func (w *dataRounds) tell(who, format string, args ...any) {
	w.Logf("%7.2fs %s: %s", time.Since(w.beginning).Seconds(), who, fmt.Sprintf(format, args...))
}

// play has each project carry out some commands, while faults happen: until the commands are done, and at least half as many.
// At last the commands end without faults, because a restore cannot end if something is killed each second.
func (w *dataRounds) play(round, rounds int) {
	w.Helper()
	w.tell("rounds", "%d to %d", round+1, round+rounds)
	ctx, cancel := context.WithTimeout(w.Context(), roundsPatience)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.each(func(p *player) error {
			for range rounds {
				pass(ctx, time.Duration(p.r.IntN(2)*p.r.IntN(600))*time.Millisecond)
				if err := w.carryOut(ctx, p, p.next(p.r)); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	faults := rand.New(rand.NewPCG(w.seed, uint64(faultStream+round)))
	for n := 0; ; n++ {
		select {
		case <-done:
			if n >= rounds/2 {
				return
			}
		default:
		}
		if n == rounds*faultsPerRound {
			<-done
			return
		}
		if err := w.fault(ctx, faults); err != nil {
			w.Errorf("fault: %v", err)
			<-done
			return
		}
	}
}

// each calls what for all players at once. An error fails the test, and does not end the others.
func (w *dataRounds) each(what func(*player) error) {
	w.Helper()
	var all errgroup.Group
	for _, p := range w.players {
		all.Go(func() error {
			if err := what(p); err != nil {
				w.Errorf("project %s: %v", p.name, err)
			}
			return nil
		})
	}
	_ = all.Wait() // has no error
}

// settle waits until all is as the newest commands want it, checks the data of all projects, and adds some.
func (w *dataRounds) settle() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), roundsPatience)
	defer cancel()
	w.tell("settle", "nodes")
	for _, node := range []string{"n1", "n2"} {
		w.must(w.cordon(ctx, "uncordon", node))
	}
	for _, node := range []string{"n1", "n2"} {
		w.ready(node)
	}
	w.tell("settle", "projects")
	w.each(func(p *player) error {
		if !p.exists {
			return w.AwaitGone(ctx, p.name)
		}
		return w.awaitRuns(ctx, p)
	})
	w.tell("settle", "volumes")
	volumes := w.awaitPlaces(ctx)
	if w.Failed() { // what does not run cannot be read, except after a long wait
		return
	}
	w.tell("settle", "data")
	w.each(func(p *player) error { return w.check(ctx, p, volumes) })
	w.readWitness()
	if w.Failed() {
		return
	}
	w.each(func(p *player) error { // the next rounds begin with data
		if !p.mounts {
			return nil
		}
		p.begin(command{verb: verbWrite})
		return w.writeFile(ctx, p, patience)
	})
	w.tell("settled", "%d acknowledged writes so far", w.writes.Load())
}

// check reads the volumes of a project.
func (w *dataRounds) check(ctx context.Context, p *player, volumes map[string]*carav1.Volume) error {
	w.Helper()
	found, err := w.files(ctx, p, volumes)
	if err != nil {
		return fmt.Errorf("read the volume: %w", err)
	}
	for _, problem := range p.wrong(found) {
		w.Errorf("project %s: %s", p.name, problem)
	}
	p.settled(volumes[api.VolumeName(p.name, "data")].GetMetadata().GetUid())
	return w.checkKept(ctx, p, volumes)
}

// awaitRuns waits until a project runs and its move has ended. It ends the wait when the project fails, because each of these can run.
func (w *dataRounds) awaitRuns(ctx context.Context, p *player) error {
	return testcluster.WaitFor(ctx, "project "+p.name+" runs", func(ctx context.Context) error {
		got, err := w.projects.GetProject(ctx, &carav1.GetRequest{Name: p.name})
		move := got.GetStatus().GetMove()
		if err != nil || testcluster.Runs(got) && move == nil {
			return err
		}
		err = fmt.Errorf("it is %s, its volumes are %v, its move is %v", testcluster.Summary(got), got.GetStatus().GetVolumes(), move)
		if got.GetStatus().GetPhase() == api.PhaseFailed {
			err = testcluster.Fatal(err)
		}
		return err
	})
}

// awaitPlaces waits until the Volume objects are those of the engines, and returns them by name.
func (w *dataRounds) awaitPlaces(ctx context.Context) map[string]*carav1.Volume {
	w.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	byName := map[string]*carav1.Volume{}
	var problems []string
	err := testcluster.WaitFor(ctx, "each volume is in its place", func(ctx context.Context) error {
		list, err := w.volumes.ListVolumes(ctx, &carav1.ListVolumesRequest{})
		if err != nil {
			return err
		}
		engines := map[string][]string{}
		for node, host := range w.nodes {
			held, err := w.Held(ctx, host, "")
			if err != nil {
				return err
			}
			for _, v := range held.Volumes {
				if uid := v.Labels[api.LabelVolumeUID]; uid != "" {
					engines[node] = append(engines[node], uid)
				}
			}
		}
		clear(byName)
		for _, v := range list.GetItems() {
			byName[v.GetMetadata().GetName()] = v
		}
		if problems = misplaced(list.GetItems(), engines); len(problems) > 0 {
			return errors.New(strings.Join(problems, "\n"))
		}
		return nil
	})
	if err != nil {
		w.Errorf("%v\n%s", err, strings.Join(problems, "\n"))
	}
	return byName
}

// printFiles prints each file of the volume with its value.
const printFiles = `for f in /data/*; do [ ! -e "$f" ] || { read -r v <"$f"; echo "${f##*/} $v"; }; done`

// files returns the files in the volume of a project, from its container or, if no container mounts it, from the engine.
func (w *dataRounds) files(ctx context.Context, p *player, volumes map[string]*carav1.Volume) (map[string]string, error) {
	if !p.exists || !p.mounts {
		v := volumes[api.VolumeName(p.name, "data")]
		if !v.GetStatus().GetMade() {
			return nil, nil //nolint:nilnil // no volume has no files
		}
		return w.filesIn(ctx, w.nodes[v.GetStatus().GetNode()], inEngine(v))
	}
	var out string
	err := testcluster.WaitFor(ctx, "a command runs in "+p.name, func(ctx context.Context) (err error) {
		out, err = w.exec(ctx, p.name, "sh", "-c", printFiles)
		return err
	})
	found := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[name] = value
	}
	return found, err
}

// filesIn reads a volume of an engine through a container that is never started.
func (w *dataRounds) filesIn(ctx context.Context, host, volume string) (map[string]string, error) {
	docker, err := testdocker.Client(host)
	if err != nil {
		return nil, err
	}
	defer docker.Close()
	made, err := docker.ContainerCreate(ctx, &container.Config{Image: testimage.Busybox, Cmd: []string{"true"}},
		&container.HostConfig{Binds: []string{volume + ":/data"}}, nil, nil, "")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := docker.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true}); err != nil {
			w.Error(err)
		}
	}()
	archive, _, err := docker.CopyFromContainer(ctx, made.ID, "/data")
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	found, entries := map[string]string{}, tar.NewReader(archive)
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			text, err := io.ReadAll(entries)
			if err != nil {
				return nil, err
			}
			found[path.Base(h.Name)] = string(text)
		}
	}
}

// readWitness checks what the containers found in their volume when they started.
func (w *dataRounds) readWitness() {
	w.Helper()
	for _, p := range w.players {
		said, err := filepath.Glob(filepath.Join(w.witness, p.name+".*.done"))
		w.must(err)
		for _, file := range said {
			text, err := os.ReadFile(file)
			w.must(err)
			manifest, err := strconv.Atoi(strings.Split(filepath.Base(file), ".")[1])
			w.must(err)
			for _, problem := range p.wrongStart(manifest, strings.Fields(string(text))) {
				w.Errorf("project %s: %s", p.name, problem)
			}
			w.must(os.Remove(file))
			w.starts++
		}
	}
}
