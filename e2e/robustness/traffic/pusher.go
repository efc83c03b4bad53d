package traffic

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// Pusher commits random changes to a repository: projects come, change and go.
type Pusher struct {
	Recorder *Recorder
	Repo     *testgit.Repo
	Prefix   string // of the names of projects
	Projects int    // how many there are at most
	Random   *rand.Rand
	// Pause is the mean time between two pushes.
	Pause time.Duration

	declared map[string]string
}

// Run pushes until ctx ends.
func (p *Pusher) Run(ctx context.Context) error {
	p.declared = map[string]string{}
	for ctx.Err() == nil {
		if err := p.once(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		pause(ctx, time.Duration(p.Random.Int64N(2*int64(p.Pause))))
	}
	return nil
}

func (p *Pusher) once(ctx context.Context) error {
	for range 1 + p.Random.IntN(2) {
		name := fmt.Sprintf("%s%d", p.Prefix, p.Random.IntN(p.Projects))
		if _, there := p.declared[name]; there && p.Random.IntN(3) == 0 {
			delete(p.declared, name)
			if err := p.Repo.Remove(name + ".yaml"); err != nil {
				return err
			}
			continue
		}
		image := images()[p.Random.IntN(len(images()))]
		p.declared[name] = image
		if err := p.Repo.Write(name+".yaml", Manifest(name, image, "")); err != nil {
			return err
		}
	}
	commit, err := p.Repo.Commit(ctx, fmt.Sprintf("Declare %v", slices.Sorted(maps.Keys(p.declared))))
	if err != nil {
		return err
	}
	if err := p.Repo.Push(ctx); err != nil {
		return err
	}
	p.Recorder.push(model.Push{At: p.Recorder.Now(), Commit: commit, Declared: maps.Clone(p.declared)})
	return nil
}

func images() []string { return []string{testimage.WebV1, testimage.WebV2, testimage.KV} }

// Manifest is a project with one service. One with the image KV keeps data in a Managed volume.
func Manifest(name, image, more string) string {
	text := "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: " + name + "}\nspec:\n  services:\n  - name: main\n    image: " + image +
		"\n    stopGracePeriod: 1s\n"
	if image == testimage.KV {
		text += "    volumeMounts: [{name: data, mountPath: /data}]\n  volumes: [{name: data, type: Managed}]\n"
	}
	return text + more
}
