package kind

import (
	"context"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// volumeWatch is a watch of volumes. The API's stream of changes has only what is stored, so each volume is fetched with
// its size and with the state that follows from its node.
type volumeWatch struct {
	conn   grpc.ClientConnInterface
	filter Filter
	stream grpc.ServerStreamingClient[carav1.WatchResponse]
	shown  map[string]bool // a volume that leaves the filter is shown once more
	next   []Change
}

// watchVolumes streams the volumes of the list, then each that changes.
func watchVolumes(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
	stream, err := carav1.NewWatchServiceClient(conn).Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindVolume}})
	if err != nil {
		return nil, err
	}
	w := &volumeWatch{conn: conn, filter: f, stream: stream, shown: map[string]bool{}}
	return func() (Change, error) { return w.recv(ctx) }, nil
}

func (w *volumeWatch) recv(ctx context.Context) (Change, error) {
	for len(w.next) == 0 {
		m, err := w.stream.Recv()
		if err != nil {
			return Change{}, err
		}
		switch {
		case m.GetSynced():
			err = w.first(ctx)
		case m.GetResourceVersion() != "": // the messages before have none: the list has the same objects
			err = w.changed(ctx, m.GetChanges())
		}
		if err != nil {
			return Change{}, err
		}
	}
	c := w.next[0]
	w.next = w.next[1:]
	return c, nil
}

// first takes the volumes of the list. The stream has begun before, so no change is missed.
func (w *volumeWatch) first(ctx context.Context) error {
	items, err := volumes(ctx, w.conn, w.filter)
	if err != nil {
		return err
	}
	for _, v := range items {
		w.add(api.WatchAdded, v)
	}
	w.next = append(w.next, Change{Type: api.WatchBookmark})
	return nil
}

func (w *volumeWatch) changed(ctx context.Context, changes []*carav1.Change) error {
	for _, c := range changes {
		if c.GetDeleted() {
			w.add(api.WatchDeleted, c.GetObject().GetVolume())
			continue
		}
		v, err := carav1.NewVolumeServiceClient(w.conn).GetVolume(ctx, ByName(c.GetObject().GetVolume().GetMetadata().GetName()))
		switch {
		case err == nil:
			w.add(api.WatchModified, v)
		case !api.IsNotFound(err): // its deletion follows
			return err
		}
	}
	return nil
}

// add shows a volume that matches the filter, or matched it before.
func (w *volumeWatch) add(typ string, v *carav1.Volume) {
	name, f := v.GetMetadata().GetName(), w.filter
	matches := (f.Name == "" || f.Name == name) && (f.Project == "" || f.Project == v.GetSpec().GetProject()) &&
		(f.Node == "" || f.Node == v.GetStatus().GetNode()) && (f.State == "" || f.State == v.GetStatus().GetState())
	if matches || w.shown[name] {
		w.next = append(w.next, Change{typ, v})
	}
	w.shown[name] = matches && typ != api.WatchDeleted
}
