package docker

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// Logs implements engine.Streams.
func (e *streams) Logs(ctx context.Context, id string, o engine.LogOptions, emit func(engine.LogLine) error) error {
	if o.Tail > 0 && !o.Follow {
		return e.tail(ctx, id, o, emit)
	}
	last := "all"
	switch {
	case o.Tail < 0:
		last = "0"
	case max(o.Tail, o.Last) > 0:
		last = strconv.Itoa(max(o.Tail, o.Last))
	}
	_, err := e.logs(ctx, id, o, last, emit)
	return err
}

// logs reads a log once, starting at its last frames, and returns the number of frames.
func (e *streams) logs(ctx context.Context, id string, o engine.LogOptions, last string, emit func(engine.LogLine) error) (frames int, err error) {
	docker, err := e.api(ctx)
	if err != nil {
		return 0, err
	}
	options := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: o.Follow, Tail: last}
	if !o.Since.IsZero() {
		options.Since = strconv.FormatInt(o.Since.Unix(), 10) + "." + nanos(o.Since)
	}
	if !o.Until.IsZero() {
		options.Until = strconv.FormatInt(o.Until.Unix(), 10) + "." + nanos(o.Until)
	}
	body, err := docker.ContainerLogs(ctx, id, options)
	if err != nil {
		return 0, wrap(err, "read logs of container %.12s", id)
	}
	defer body.Close()
	frames, err = readFrames(body, o.Whole, emit)
	if err != nil && ctx.Err() == nil {
		return frames, wrap(err, "read logs of container %.12s", id)
	}
	return frames, ctx.Err()
}

// tail reads the last lines. The engine counts frames, and a long line has several, so tail asks for more frames until there
// are enough lines. The first line of a read may be incomplete, and does not count unless the whole log was read.
func (e *streams) tail(ctx context.Context, id string, o engine.LogOptions, emit func(engine.LogLine) error) error {
	for ask := o.Tail + 1; ; ask *= 4 {
		var kept []engine.LogLine
		lines := 0
		frames, err := e.logs(ctx, id, o, strconv.Itoa(ask), func(l engine.LogLine) error {
			if len(kept) < o.Tail {
				kept = append(kept, l)
			} else {
				kept[lines%o.Tail] = l
			}
			lines++
			return nil
		})
		if err != nil {
			return err
		}
		if frames >= ask && lines-1 < o.Tail {
			continue
		}
		for i := range kept {
			if err := emit(kept[(max(lines-o.Tail, 0)+i)%len(kept)]); err != nil {
				return err
			}
		}
		return nil
	}
}

func nanos(t time.Time) string {
	s := strconv.Itoa(t.Nanosecond())
	return strings.Repeat("0", 9-len(s)) + s
}

// Events implements engine.Streams. The engine responds before it subscribes, so Events also asks for all past events, of
// which the engine keeps at most 256. A duplicate event only costs an extra look. Events does not ask for a start time,
// because the engine's clock may differ.
func (e *streams) Events(ctx context.Context, labels map[string]string, subscribed func(), emit func(engine.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	if err := e.Ping(ctx); err != nil {
		return err
	}
	messages, failed := docker.Events(ctx, events.ListOptions{Filters: eventFilter(), Since: "1"})
	subscribed()
	for {
		select {
		case m := <-messages:
			if project, ours := projectOf(m, labels); ours {
				emit(engine.Event{Project: project, Action: string(m.Action)})
			}
		case err := <-failed:
			if err == nil {
				err = io.EOF
			}
			return wrap(err, "read events")
		}
	}
}

// eventFilter matches the events after which the agent looks at a project. Events of networks have no labels, so labels cannot
// be part of it.
func eventFilter() filters.Args {
	match := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.NetworkEventType)))
	for _, action := range []events.Action{
		events.ActionStart, events.ActionDie, events.ActionPause, events.ActionUnPause, events.ActionDestroy, events.ActionRename,
		events.ActionUpdate, events.ActionDisconnect,
	} {
		match.Add("event", string(action))
	}
	return match
}

// projectOf returns the project of an event. For a network only the name is known, which may be someone else's; the
// project's worker checks that.
func projectOf(m events.Message, labels map[string]string) (project string, ours bool) {
	if m.Type == events.NetworkEventType {
		return strings.CutPrefix(m.Actor.Attributes["name"], engine.NetworkPrefix)
	}
	return m.Actor.Attributes[api.LabelProject], has(m.Actor.Attributes, labels)
}
