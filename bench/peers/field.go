package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// event is one contest: what -only calls it, and what is done.
type event struct {
	name string
	hold func(ctx context.Context, o options, f *field, out *table) error
}

func (o options) events() []event {
	started := func(name string, s shape, runs int) event {
		return event{name, func(ctx context.Context, _ options, f *field, out *table) error {
			return contest(ctx, f.contestants(s), f.names, s, runs, out)
		}}
	}
	ofCara := func(name string, measure func(*cluster, context.Context, options, *table) error) event {
		return event{name, func(ctx context.Context, o options, f *field, out *table) error { return measure(f.cara, ctx, o, out) }}
	}
	return []event{
		started("one", shape{1, 1}, o.runs),
		started("three", shape{1, 3}, o.runs),
		started("twenty", shape{1, 20}, o.fewer()),
		started("many", shape{o.many, 3}, o.fewer()),
		{"data", func(ctx context.Context, o options, f *field, out *table) error { return f.data(ctx, o, out) }},
		ofCara("alone", (*cluster).alone),
		ofCara("pushes", (*cluster).pushes),
		ofCara("ingress", (*cluster).ingress),
		ofCara("idle", (*cluster).idle),
		ofCara("crowd", (*cluster).crowd),
		{"waiting", func(ctx context.Context, o options, f *field, out *table) error {
			return o.waiting(ctx, f.cara.Dir+"-waiting", out, f.cara.name)
		}},
	}
}

func (o options) contestNames() []string {
	var names []string
	for _, e := range o.events() {
		names = append(names, e.name)
	}
	return names
}

// chosen are the contests of -only, in the order in which they are always held.
func (o options) chosen() ([]event, error) {
	all := o.events()
	if o.only == "" {
		return all, nil
	}
	wanted := strings.Split(o.only, ",")
	for _, name := range wanted {
		if !slices.Contains(o.contestNames(), name) {
			return nil, fmt.Errorf("-only %s: there is no such contest, but %s", name, strings.Join(o.contestNames(), ", "))
		}
	}
	return slices.DeleteFunc(all, func(e event) bool { return !slices.Contains(wanted, e.name) }), nil
}

// field is who takes part.
type field struct {
	names   string // every name in the engine begins with it
	engine  *engine
	cara    *cluster
	compose *compose // nil: not here
	swarm   *swarm   // nil: not here
}

func (o options) openField(ctx context.Context, dir string) (_ *field, err error) {
	host, err := testdocker.Find(ctx)
	if err != nil {
		return nil, err
	}
	if err := testdocker.LoadImages(ctx, host, testimage.KV, testimage.WebV1); err != nil {
		return nil, err
	}
	f := &field{names: "bench" + strconv.FormatInt(int64(os.Getpid()), 36)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close(context.WithoutCancel(ctx)))
		}
	}()
	if f.engine, err = openEngine(ctx, host); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%s; each line is one run\n", f.engine)
	if f.cara, err = o.openCluster(ctx, filepath.Join(dir, "cara"), host, f.engine, f.names+"c"); err != nil {
		return nil, err
	}
	if binary, missing := exec.LookPath(o.compose); missing == nil {
		f.compose = &compose{binary: binary, dir: dir, host: host}
	} else {
		fmt.Fprintln(os.Stderr, "without Compose:", missing)
	}
	if !o.swarm {
		return f, nil
	}
	switch f.swarm, err = openSwarm(ctx, dir); {
	case errors.Is(err, testdocker.ErrNoSecond) || errors.Is(err, errNoDocker):
		fmt.Fprintln(os.Stderr, "without Swarm:", err)
	case err != nil:
		return nil, err
	}
	return f, nil
}

// contestants of a shape.
func (f *field) contestants(s shape) []contestant {
	all := append(f.engine.contestants(), f.cara.contestants(s)...)
	if f.compose != nil {
		all = append(all, f.compose.contestant())
	}
	if f.swarm != nil {
		all = append(all, f.swarm.contestant())
	}
	return all
}

// close takes away whatever of it is in the engines.
func (f *field) close(ctx context.Context) error {
	var errs []error
	if f.cara != nil {
		errs = append(errs, f.cara.sweep(ctx), f.cara.close(ctx))
	}
	if f.swarm != nil {
		errs = append(errs, f.swarm.close(ctx))
	}
	return errors.Join(errs...)
}
