package docker

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/pkg/stdcopy"

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

// maxOutput is what is kept of a command's output.
const maxOutput = 4096

// Exec implements agent.Streams.
func (e *Engine) Exec(ctx context.Context, id string, command []string) (int, string, error) {
	docker, err := e.api(ctx)
	if err != nil {
		return 0, "", err
	}
	made, err := docker.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, "", wrap(err, "exec in container %.12s", id)
	}
	stream, err := docker.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return 0, "", wrap(err, "exec in container %.12s", id)
	}
	// The stream is a hijacked connection: closing it is the only thing that ends a read.
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)()
	out := &head{}
	if _, err := stdcopy.StdCopy(out, out, stream.Reader); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, out.String(), wrap(err, "exec in container %.12s", id)
	}
	if ctx.Err() != nil {
		return 0, out.String(), wrap(ctx.Err(), "exec in container %.12s", id)
	}
	ended, err := docker.ContainerExecInspect(ctx, made.ID)
	if err != nil {
		return 0, out.String(), wrap(err, "exec in container %.12s", id)
	}
	return ended.ExitCode, out.String(), nil
}

// head keeps the beginning of what is written to it.
type head struct{ strings.Builder }

func (h *head) Write(p []byte) (int, error) {
	if room := maxOutput - h.Len(); room > 0 {
		h.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Events implements agent.Streams. The engine answers before it subscribes, so the stream begins a little earlier: an
// event that is heard twice costs a look.
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
	since := time.Now().Add(-time.Second)
	messages, failed := docker.Events(ctx, events.ListOptions{
		Filters: match, Since: strconv.FormatInt(since.Unix(), 10) + "." + nanos(since),
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
