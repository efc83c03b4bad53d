package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/jsonmessage"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// wholeID is the id of an image, as the engine returns it.
var wholeID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// InspectImage implements engine.Images. It asks for the full form of a name, because the engine takes a short one that it does not
// have for the beginning of an id.
func (e *images) InspectImage(ctx context.Context, ref string) (engine.Image, error) {
	full, repository := ref, ""
	if !wholeID.MatchString(ref) {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			return engine.Image{}, fmt.Errorf("inspect image %s: %w: %w", ref, engine.ErrInvalid, err)
		}
		full, repository = reference.TagNameOnly(named).String(), named.Name()
	}
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) (engine.Image, error) {
		found, err := docker.ImageInspect(ctx, full)
		if err != nil {
			return engine.Image{}, wrap(err, "inspect image %s", ref)
		}
		out := engine.Image{ID: found.ID}
		if found.Config != nil {
			out.Check = checkOf(found.Config.Healthcheck, found.Config.Shell)
			out.Volumes = slices.Sorted(maps.Keys(found.Config.Volumes))
		}
		for _, digest := range found.RepoDigests {
			d, err := reference.ParseNormalizedNamed(digest)
			if err == nil && d.Name() == repository {
				out.Digest = digest
			}
		}
		return out, nil
	})
}

// ListImages implements engine.Images.
func (e *images) ListImages(ctx context.Context) ([]engine.StoredImage, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) ([]engine.StoredImage, error) {
		list, err := docker.ImageList(ctx, image.ListOptions{})
		if err != nil {
			return nil, wrap(err, "list images")
		}
		out := make([]engine.StoredImage, 0, len(list))
		for _, i := range list {
			tags := slices.DeleteFunc(slices.Clone(i.RepoTags), func(tag string) bool { return tag == "<none>:<none>" })
			out = append(out, engine.StoredImage{ID: i.ID, Tags: tags, Size: i.Size})
		}
		return out, nil
	})
}

// RemoveImage implements engine.Images. It never forces the removal, which would remove images that stopped containers use.
func (e *images) RemoveImage(ctx context.Context, name string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		_, err := docker.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
		return wrap(unlessGone(err), "remove image %s", name)
	})
}

// PullImage implements engine.Images. It has no total timeout: it fails when there is no progress for the inactivity limit.
func (e *images) PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(engine.Progress)) (engine.Image, error) {
	if err := e.cfg.mayPull(ref); err != nil {
		return engine.Image{}, err
	}
	options, err := pullOptions(auth)
	if err != nil {
		return engine.Image{}, fmt.Errorf("pull image %s: %w", ref, err)
	}
	pull, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(e.cfg.Inactivity, func() { cancel(errIdle) })
	defer idle.Stop()
	err = e.follow(pull, ref, options, func(p engine.Progress) {
		idle.Reset(e.cfg.Inactivity)
		progress(p)
	})
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(context.Cause(pull), errIdle):
		return engine.Image{}, fmt.Errorf("pull image %s: %w: nothing moved for %s", ref, engine.ErrRegistry, e.cfg.Inactivity)
	case err != nil:
		return engine.Image{}, pullError(ref, err)
	}
	return e.InspectImage(ctx, ref)
}

var errIdle = errors.New("idle")

// identityToken is the user name with which credential helpers mark a token.
const identityToken = "<token>"

func pullOptions(auth *carav1.RegistryAuth) (image.PullOptions, error) {
	if auth == nil {
		return image.PullOptions{}, nil
	}
	config := registry.AuthConfig{Username: auth.GetUsername(), Password: auth.GetPassword()}
	if auth.GetUsername() == identityToken {
		config = registry.AuthConfig{IdentityToken: auth.GetPassword()}
	}
	encoded, err := registry.EncodeAuthConfig(config)
	return image.PullOptions{RegistryAuth: encoded}, err
}

// follow reads the engine's progress messages until the pull ends.
func (e *images) follow(ctx context.Context, ref string, options image.PullOptions, progress func(engine.Progress)) error {
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	body, err := docker.ImagePull(ctx, ref, options)
	if err != nil {
		return err
	}
	defer body.Close()
	layers := map[string]layer{}
	decoder := json.NewDecoder(body)
	for {
		var m jsonmessage.JSONMessage
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != nil {
			return m.Error
		}
		if m.ID != "" && len(layers) < maxLayers {
			layers[m.ID] = layers[m.ID].with(m)
		}
		progress(sum(layers))
	}
}

// maxLayers is more than any engine accepts in an image.
const maxLayers = 512

type layer struct {
	done, total int64
	counts      bool // messages with this id are about a layer, not the tag
	ready       bool
	queued      bool
	loading     bool
}

func (l layer) with(m jsonmessage.JSONMessage) layer {
	l.queued = m.Status == "Waiting"
	l.loading = m.Status == "Pulling fs layer" || m.Status == "Downloading" || strings.HasPrefix(m.Status, "Retrying")
	switch m.Status {
	case "Pulling fs layer", "Waiting":
		l.counts = true
	case "Downloading":
		l.counts = true
		if m.Progress != nil {
			l.done, l.total = m.Progress.Current, m.Progress.Total
		}
	case "Download complete", "Extracting", "Verifying Checksum":
		l.counts, l.done = true, l.total
	case "Pull complete", "Already exists":
		l.counts, l.done, l.ready = true, l.total, true
	}
	return l
}

func sum(layers map[string]layer) engine.Progress {
	var p engine.Progress
	for _, l := range layers {
		if !l.counts {
			continue
		}
		p.Layers++
		p.Done += l.done
		p.Total += l.total
		if l.ready {
			p.Ready++
		}
		if l.queued {
			p.Queued++
		}
		if l.loading {
			p.Loading++
		}
	}
	return p
}

// pullError distinguishes a registry's refusal from a registry that did not answer. The engine reports most errors only as
// text.
func pullError(ref string, err error) error {
	text := strings.ToLower(err.Error())
	contains := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
	}
	means := engine.ErrRegistry
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("pull image %s: %w", ref, err)
	case unanswered(err):
		means = engine.ErrUnavailable
	case diskFull(err):
		means = engine.ErrNoRoom
	case contains("toomanyrequests", "too many requests", "http status: 5", "http status: 429", "no such host", "timeout", "service unavailable"):
	case errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err),
		contains("manifest unknown", "not found", "access denied", "unauthorized", "denied:", "no matching manifest",
			"no basic auth credentials", "invalid reference"):
		means = engine.ErrInvalid
	}
	return fmt.Errorf("pull image %s: %w: %w", ref, means, tidy(err))
}
