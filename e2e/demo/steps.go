package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

//go:embed manifests
var manifests embed.FS

// previewLife is how long the preview of the pull request may live: long enough to see it, short enough to wait for.
const previewLife = 10 * time.Second

const (
	shop, blog, preview = "demo-shop", "demo-blog", "demo-pr-42"
)

// tell tells the whole story, and stops at the first step that does not hold.
func (d *demo) tell(ctx context.Context) error {
	for _, s := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Find Docker, build the demo's images, start a second engine", d.prepare},
		{"Serve a git repository over HTTP", d.serveGit},
		{"Start the control plane and an agent on each engine", d.startCluster},
		{"Register the repository as a source", d.register},
		{"Push two projects: they run and answer by host name", d.pushTwo},
		{"Change one service: only its container is replaced", d.changeOne},
		{"Push a preview with expireAt: it is up", d.pushPreview},
		{"The preview goes by itself, while git still has it", d.expire},
		{"Push a broken manifest: a clear error, nothing harmed", d.breakOne},
		{"Remove a file: its project is pruned", d.prune},
	} {
		if err := d.out.step(s.title, func() error { return s.do(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// caractrl runs a command and shows it, as a person would see it.
func (d *demo) caractrl(ctx context.Context, args ...string) error {
	r, err := d.cluster.Ctl(ctx, "", args...)
	if err != nil {
		return err
	}
	d.out.show("caractrl "+strings.Join(args, " "), r.Stdout+r.Stderr)
	if r.Code != 0 {
		return fmt.Errorf("caractrl %s: exit code %d: %s", args[0], r.Code, r.Stderr)
	}
	return nil
}

func (d *demo) register(ctx context.Context) error {
	return d.caractrl(ctx, "create", "source", "git", "deploy", "--url", d.git.RepoURL("deploy"), "--branch", "main", "--interval", "1s", "--on-delete", "Delete")
}

// write puts one of the demo's manifests into the work tree, with some words replaced.
func (d *demo) write(file, manifest string, oldnew ...string) error {
	text, err := manifests.ReadFile("manifests/" + manifest)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	return d.repo.Write(file, strings.NewReplacer(oldnew...).Replace(string(text)))
}

func (d *demo) push(ctx context.Context, message string) (revision string, err error) {
	if revision, err = d.repo.Commit(ctx, message); err != nil {
		return "", err
	}
	if err := d.repo.Push(ctx); err != nil {
		return "", err
	}
	d.out.show(fmt.Sprintf("git commit -m %q && git push", message), "")
	return revision, nil
}

func (d *demo) running(ctx context.Context, names ...string) error {
	projects, err := d.cluster.Projects()
	if err != nil {
		return err
	}
	for _, name := range names {
		err := d.out.wait(ctx, name+" is Running", func(ctx context.Context) error {
			p, err := projects.GetProject(ctx, &carav1.GetRequest{Name: name})
			if err == nil && !testcluster.Runs(p) {
				err = fmt.Errorf("it is %s", testcluster.Summary(p))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// answers asks the ingress of the first node, whatever node the project runs on.
func (d *demo) answers(ctx context.Context, host, words string) error {
	return d.out.wait(ctx, fmt.Sprintf("http://%s/ answers %q", host, words), func(ctx context.Context) error {
		page, err := visit(ctx, d.ingress, host)
		if err == nil && !strings.Contains(page, words) {
			err = fmt.Errorf("it answers %.100q", page)
		}
		return err
	})
}

// visit returns the page of a host, as an ingress serves it.
func visit(ctx context.Context, ingress, host string) (page string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ingress+"/", http.NoBody)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.100q", resp.Status, text)
	}
	return string(text), err
}

func (d *demo) pushTwo(ctx context.Context) error {
	if err := d.write("shop.yaml", "shop.yaml"); err != nil {
		return err
	}
	if err := d.write("blog.yaml", "blog.yaml"); err != nil {
		return err
	}
	if _, err := d.push(ctx, "Open a shop and a blog"); err != nil {
		return err
	}
	if err := d.running(ctx, shop, blog); err != nil {
		return err
	}
	if err := d.answers(ctx, "shop.demo.test", "visits 1"); err != nil {
		return err
	}
	if err := d.answers(ctx, "blog.demo.test", "web v1"); err != nil {
		return err
	}
	return d.caractrl(ctx, "get", "projects")
}

// containers are the ids of the shop's containers, by service.
func (d *demo) containers(ctx context.Context) (map[string]string, error) {
	ids := map[string]string{}
	for _, host := range d.engines() {
		held, err := d.cluster.Held(ctx, host, shop)
		if err != nil {
			return nil, err
		}
		for _, c := range held.Containers {
			ids[c.Labels[api.LabelService]] = c.ID
		}
	}
	return ids, nil
}

func (d *demo) changeOne(ctx context.Context) error {
	before, err := d.containers(ctx)
	if err != nil {
		return err
	}
	if err := d.write("shop.yaml", "shop.yaml", "web:v1", "web:v2"); err != nil {
		return err
	}
	if _, err := d.push(ctx, "Use web v2 in the shop"); err != nil {
		return err
	}
	if err := d.answers(ctx, "shop.demo.test", "web v2"); err != nil {
		return err
	}
	if err := d.running(ctx, shop); err != nil {
		return err
	}
	after, err := d.containers(ctx)
	if err != nil {
		return err
	}
	d.out.say("container of web  %.12s -> %.12s", before["web"], after["web"])
	d.out.say("container of db   %.12s -> %.12s", before["db"], after["db"])
	if before["web"] == after["web"] || before["db"] != after["db"] {
		return fmt.Errorf("want a new container for web and the old one for db")
	}
	return nil
}
