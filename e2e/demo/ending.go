package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (d *demo) pushPreview(ctx context.Context) error {
	at := time.Now().Add(previewLife).UTC().Truncate(time.Second)
	if err := d.write("previews/pr-42.yaml", "preview.yaml", "EXPIRE-AT", at.Format(time.RFC3339)); err != nil {
		return err
	}
	if _, err := d.push(ctx, "Preview of pull request 42"); err != nil {
		return err
	}
	if err := d.running(ctx, preview); err != nil {
		return err
	}
	if err := d.answers(ctx, "pr-42.demo.test", "Pull request 42"); err != nil {
		return err
	}
	return d.caractrl(ctx, "get", "projects")
}

// gone waits until there is no such project and Docker has nothing of it.
func (d *demo) gone(ctx context.Context, name string) error {
	projects, err := d.cluster.Projects()
	if err != nil {
		return err
	}
	return d.out.wait(ctx, name+" is gone, containers and all", func(ctx context.Context) error {
		p, err := projects.GetProject(ctx, &carav1.GetRequest{Name: name})
		switch {
		case err == nil:
			return fmt.Errorf("it is %s%s", p.GetStatus().GetPhase(), until(p))
		case !api.IsNotFound(err):
			return err
		}
		for _, host := range d.engines() {
			held, err := d.cluster.Held(ctx, host, name)
			if err == nil && !held.Empty() {
				err = fmt.Errorf("left: %s", held)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// until says when a project expires, for the eyes of who waits for it.
func until(p *carav1.Project) string {
	at := p.GetSpec().GetExpireAt()
	if at == nil || time.Until(at.AsTime()) < 0 {
		return ""
	}
	return " and expires in " + seconds(time.Until(at.AsTime()))
}

func (d *demo) expire(ctx context.Context) error {
	if err := d.gone(ctx, preview); err != nil {
		return err
	}
	files, err := d.repo.Git(ctx, "ls-files", "previews")
	if err != nil {
		return err
	}
	d.out.say("git still has %s", files)
	// A pass over the source with the manifest in it must not bring the preview back.
	if err := d.caractrl(ctx, "reconcile", "deploy"); err != nil {
		return err
	}
	projects, err := d.cluster.Projects()
	if err != nil {
		return err
	}
	if _, err := projects.GetProject(ctx, &carav1.GetRequest{Name: preview}); !api.IsNotFound(err) {
		return fmt.Errorf("the expired preview is back (%w)", err)
	}
	return d.caractrl(ctx, "get", "events", "--for", "project/"+preview)
}

func (d *demo) breakOne(ctx context.Context) error {
	before, err := d.containers(ctx)
	if err != nil {
		return err
	}
	if err := d.write("shop.yaml", "broken.yaml"); err != nil {
		return err
	}
	revision, err := d.push(ctx, "Break the shop's manifest")
	if err != nil {
		return err
	}
	sources, err := d.cluster.Sources()
	if err != nil {
		return err
	}
	var said string
	err = d.out.wait(ctx, "the source says what is wrong", func(ctx context.Context) error {
		s, err := sources.GetSource(ctx, &carav1.GetRequest{Name: "deploy"})
		if err != nil {
			return err
		}
		c := api.FindCondition(s.GetStatus().GetConditions(), api.CondInvalidManifests)
		if s.GetStatus().GetSnapshot().GetRevision() != revision || c.GetStatus() != api.StatusTrue {
			return fmt.Errorf("it is at %.7s and says %q", s.GetStatus().GetSnapshot().GetRevision(), c.GetMessage())
		}
		said = c.GetMessage()
		return nil
	})
	if err != nil {
		return err
	}
	d.out.say("%s", said)
	if err := d.answers(ctx, "shop.demo.test", "web v2"); err != nil {
		return err
	}
	after, err := d.containers(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = fmt.Errorf("the shop's containers were %v and are %v", before, after)
	}
	if err != nil {
		return err
	}
	if err := d.write("shop.yaml", "shop.yaml", "web:v1", "web:v2"); err != nil {
		return err
	}
	_, err = d.push(ctx, "Mend it")
	return errors.Join(err, d.mended(ctx))
}

func (d *demo) mended(ctx context.Context) error {
	sources, err := d.cluster.Sources()
	if err != nil {
		return err
	}
	return d.out.wait(ctx, "the source is Ready", func(ctx context.Context) error {
		s, err := sources.GetSource(ctx, &carav1.GetRequest{Name: "deploy"})
		if err != nil {
			return err
		}
		if c := api.FindCondition(s.GetStatus().GetConditions(), api.CondReady); c.GetStatus() != api.StatusTrue {
			return fmt.Errorf("%s: %s", c.GetReason(), c.GetMessage())
		}
		return nil
	})
}

func (d *demo) prune(ctx context.Context) error {
	if err := d.repo.Remove("blog.yaml"); err != nil {
		return err
	}
	if _, err := d.push(ctx, "Close the blog"); err != nil {
		return err
	}
	if err := d.gone(ctx, blog); err != nil {
		return err
	}
	if err := d.answers(ctx, "shop.demo.test", "web v2"); err != nil {
		return err
	}
	return d.caractrl(ctx, "get", "projects")
}

// leave deletes the source, and with it what it declared.
func (d *demo) leave(ctx context.Context) error {
	if err := d.caractrl(ctx, "delete", "source", "deploy"); err != nil {
		return err
	}
	if err := d.gone(ctx, shop); err != nil {
		return err
	}
	return d.out.wait(ctx, "Docker holds nothing of this cluster", func(ctx context.Context) error {
		for _, host := range d.engines() {
			held, err := d.cluster.Held(ctx, host, "")
			if err == nil && !held.Empty() {
				err = fmt.Errorf("left: %s", held)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
