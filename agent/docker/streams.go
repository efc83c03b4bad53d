package docker

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/api"
)

// Logs implements agent.Streams.
func (e *Engine) Logs(ctx context.Context, id string, o agent.LogOptions, emit func(agent.LogLine) error) error {
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	options := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: o.Follow, Tail: "all"}
	if o.Tail > 0 {
		options.Tail = strconv.Itoa(o.Tail)
	} else if o.Tail < 0 {
		options.Tail = "0"
	}
	if !o.Since.IsZero() {
		options.Since = strconv.FormatInt(o.Since.Unix(), 10) + "." + nanos(o.Since)
	}
	if !o.Until.IsZero() {
		options.Until = strconv.FormatInt(o.Until.Unix(), 10) + "." + nanos(o.Until)
	}
	body, err := docker.ContainerLogs(ctx, id, options)
	if err != nil {
		return wrap(err, "read logs of container %.12s", id)
	}
	defer body.Close()
	if err := readFrames(body, emit); err != nil && ctx.Err() == nil {
		return wrap(err, "read logs of container %.12s", id)
	}
	return ctx.Err()
}

func nanos(t time.Time) string {
	s := strconv.Itoa(t.Nanosecond())
	return strings.Repeat("0", 9-len(s)) + s
}

// Events implements agent.Streams. The engine answers before it subscribes, so it is asked for all that it remembers, which are 256 events at
// most: one that is heard twice costs a look. It is not asked for events since a time, as its clock may differ from the agent's.
func (e *Engine) Events(ctx context.Context, labels map[string]string, subscribed func(), emit func(agent.Event)) error {
	match := labelFilter(labels)
	match.Add("type", string(events.ContainerEventType))
	for _, action := range []events.Action{
		events.ActionStart, events.ActionDie, events.ActionPause, events.ActionUnPause, events.ActionDestroy, events.ActionRename,
	} {
		match.Add("event", string(action))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	if err := e.Ping(ctx); err != nil {
		return err
	}
	messages, failed := docker.Events(ctx, events.ListOptions{
		Filters: match, Since: "1",
	})
	subscribed()
	for {
		select {
		case m := <-messages:
			emit(agent.Event{Project: m.Actor.Attributes[api.LabelProject], Action: string(m.Action)})
		case err := <-failed:
			if err == nil {
				err = io.EOF
			}
			return wrap(err, "read events")
		}
	}
}
