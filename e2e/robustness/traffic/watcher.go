package traffic

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// streamLife is how long a watch lasts at most until the watcher breaks it and continues from where it was.
const streamLife = 5 * time.Second

// Watcher follows all projects with one watch after the other.
type Watcher struct {
	Recorder *Recorder
	Servers  Servers
	ID       int

	mu      sync.Mutex
	seen    model.Watch
	current model.Segment
	at      string // where to continue; empty starts again
	values  map[string]int
	synced  bool
}

// Run follows until ctx ends, and then records what it was told.
func (w *Watcher) Run(ctx context.Context) error {
	l, err := w.Servers.dial(w.ID)
	if err != nil {
		return err
	}
	w.seen.Watcher = w.ID
	for ctx.Err() == nil {
		err := w.stream(ctx, l)
		if api.Code(err) == codes.OutOfRange { // the history is gone
			w.restart()
		} else if err != nil {
			l.next()
			pause(ctx, retry)
		}
	}
	w.restart()
	w.Recorder.watch(w.seen)
	return l.close()
}

// restart ends the segment.
func (w *Watcher) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.synced {
		w.seen.Segments = append(w.seen.Segments, w.current)
	}
	w.current, w.at, w.synced = model.Segment{}, "", false
	w.values = map[string]int{}
}

// stream follows one stream to its end. Streams that end because they are old are no error.
func (w *Watcher) stream(ctx context.Context, l *line) error {
	w.mu.Lock()
	if w.at == "" { // also after a stream that broke in the initial state
		w.current, w.values = model.Segment{}, map[string]int{}
	}
	w.current.Streams++
	at := w.at
	w.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, streamLife)
	defer cancel()
	stream, err := carav1.NewWatchServiceClient(l.conn()).Watch(bounded, &carav1.WatchRequest{Kinds: []string{api.KindProject}, ResourceVersion: at})
	for err == nil {
		var m *carav1.WatchResponse
		if m, err = stream.Recv(); err == nil {
			err = w.take(m)
		}
	}
	if bounded.Err() != nil {
		return nil
	}
	return err
}

func (w *Watcher) take(m *carav1.WatchResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	revision := int64(0)
	if v := m.GetResourceVersion(); v != "" {
		var err error
		if revision, err = strconv.ParseInt(v, 10, 64); err != nil {
			return fmt.Errorf("a watch gives the resourceVersion %q: %w", v, err)
		}
	}
	for _, ch := range m.GetChanges() {
		e := w.event(ch, revision)
		if w.synced {
			w.current.Events = append(w.current.Events, e)
		} else {
			w.current.Initial = append(w.current.Initial, e)
		}
		if e.Value == model.Absent {
			delete(w.values, e.Key)
		} else {
			w.values[e.Key] = e.Value
		}
	}
	if m.GetSynced() && !w.synced { // a stream that continues says it, too
		w.synced, w.current.From = true, revision
	}
	if w.synced && revision > 0 {
		w.at, w.current.To = m.GetResourceVersion(), max(w.current.To, revision)
	}
	return nil
}

func (w *Watcher) event(ch *carav1.Change, revision int64) model.Event {
	p := ch.GetObject().GetProject()
	e := model.Event{
		Revision: revision, Received: w.Recorder.Now(), Key: p.GetMetadata().GetName(), Deleted: ch.GetDeleted(),
		UID: p.GetMetadata().GetUid(), Generation: p.GetMetadata().GetGeneration(), Epoch: p.GetStatus().GetEpoch(),
		Node: p.GetStatus().GetNodeRef(), Phase: p.GetStatus().GetPhase(),
	}
	if e.Deleted {
		return e
	}
	e.Version, e.Value = revisionOf(p), valueOf(p)
	if e.Phase == api.PhaseFailed {
		e.Why = api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase).GetMessage()
	}
	for _, i := range p.GetSpec().GetIngress() {
		e.Hosts = append(e.Hosts, i.GetHost())
	}
	return e
}

// Differs returns an error if the projects that the watch has told of are not these.
func (w *Watcher) Differs(want map[string]int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced || !maps.Equal(w.values, want) {
		return fmt.Errorf("watch %d is at %q and has %v, the list has %v", w.ID, w.at, w.values, want)
	}
	return nil
}
