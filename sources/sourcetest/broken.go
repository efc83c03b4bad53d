package sourcetest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// breakable is a subject whose driver can fail with an error that no driver explains.
type breakable struct {
	Subject
	at atomic.Value // step that fails: "", "probe", "tree", "read", "panic"
}

// errPlain is neither a sources.Error nor a FileError.
var errPlain = errors.New("input/output error")

func (b *breakable) fails(step string) error {
	switch at := b.at.Load(); {
	case at == "panic" && step == "read":
		panic(errPlain)
	case at == step:
		return errPlain
	}
	return nil
}

func (b *breakable) Opener() sources.Opener { return &breakableOpener{b.Subject.Opener(), b} }

type breakableOpener struct {
	sources.Opener
	b *breakable
}

func (o *breakableOpener) Open(spec *carav1.SourceSpec, secret map[string][]byte) (sources.Driver, error) {
	d, err := o.Opener.Open(spec, secret)
	if err != nil {
		return nil, err
	}
	broken := &breakableDriver{d, o.b}
	if live, ok := d.(sources.Live); ok {
		return &breakableLive{broken, live}, nil
	}
	return broken, nil
}

type breakableDriver struct {
	sources.Driver
	b *breakable
}

func (d *breakableDriver) Probe(ctx context.Context, maxAge time.Duration) (string, error) {
	if err := d.b.fails("probe"); err != nil {
		return "", err
	}
	return d.Driver.Probe(ctx, maxAge)
}

func (d *breakableDriver) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	if err := d.b.fails("tree"); err != nil {
		return nil, err
	}
	tree, err := d.Driver.Tree(ctx, revision)
	if err != nil {
		return nil, err
	}
	for i := range tree.Files {
		read := tree.Files[i].Read
		tree.Files[i].Read = func(ctx context.Context) ([]byte, error) {
			if err := d.b.fails("read"); err != nil {
				return nil, err
			}
			return read(ctx)
		}
	}
	return tree, nil
}

type breakableLive struct {
	*breakableDriver
	live sources.Live
}

func (d *breakableLive) Watch(ctx context.Context, changed func()) { d.live.Watch(ctx, changed) }
func (d *breakableLive) Degraded() string                          { return d.live.Degraded() }

// anyError makes each step of the driver fail. Whatever the error, the source must report that it was not read.
func anyError(t *testing.T, w *Harness) {
	w.Stop()
	b := &breakable{Subject: w.Subject}
	b.at.Store("")
	w.Subject = b
	w.Start()
	w.two()
	for _, tt := range []struct{ at, message string }{
		{"probe", "probe the source: input/output error"},
		{"tree", "read the tree at REV: input/output error"},
		{"read", "read a.yaml at REV: input/output error"},
		{"panic", "read a.yaml at REV: the reader panicked: input/output error"},
	} {
		b.at.Store(tt.at)
		w.Subject.Write("a.yaml", Project("a", "web:"+tt.at))
		w.Subject.Publish()
		w.Ask()
		reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue)
		before, after, ok := strings.Cut(tt.message, "REV")
		if reason != api.ReasonReadFailed || !strings.HasPrefix(message, before) || ok && !strings.Contains(message, after) {
			t.Errorf("%s: %s: %s", tt.at, reason, message)
		}
		w.Wait("an answer to the request", func() bool {
			s := w.Source().Status
			return s.HandledToken == s.RequestedToken
		})
		b.at.Store("")
		w.Hint()
		w.Condition(api.CondFetchFailed, api.StatusFalse)
		w.Wait("the change", func() bool {
			p := w.Server.Publishes()
			u := p[len(p)-1].Upserts
			return len(u) == 1 && u[0].Project.Spec.Services[0].Image == "web:"+tt.at
		})
	}
}
