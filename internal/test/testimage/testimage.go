package testimage

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// References of the fixture images in manifests.
const (
	WebV1   = "cara-fixtures/web:v1"
	WebV2   = "cara-fixtures/web:v2"
	WebV3   = "cara-fixtures/web:v3"
	KV      = "cara-fixtures/kv:v1"
	Job     = "cara-fixtures/job:v1"
	Echo    = "cara-fixtures/echo:v1"
	Busybox = "busybox:local"
)

// ContentLabel is the image label that holds Fixture.Content.
const ContentLabel = "cara.fixtures.content"

// Fixture is one image: a program, its version, and its reference.
type Fixture struct {
	Ref     string
	program string // directory in fixtures/images; empty for busybox
	version string
	ports   []string
}

// All returns every fixture image.
func All() []Fixture {
	return []Fixture{
		{Ref: WebV1, program: "web", version: "v1", ports: []string{"8080/tcp"}},
		{Ref: WebV2, program: "web", version: "v2", ports: []string{"8080/tcp"}},
		{Ref: WebV3, program: "web", version: "v3", ports: []string{"8080/tcp"}},
		{Ref: KV, program: "kv", version: "v1", ports: []string{"6380/tcp"}},
		{Ref: Job, program: "job", version: "v1"},
		{Ref: Echo, program: "echo", version: "v1", ports: []string{"9000/tcp", "9000/udp"}},
		{Ref: Busybox},
	}
}

// Lookup returns the fixtures with these references, or all without references.
func Lookup(refs ...string) ([]Fixture, error) {
	all := All()
	if len(refs) == 0 {
		return all, nil
	}
	found := make([]Fixture, 0, len(refs))
	for _, ref := range refs {
		i := slices.IndexFunc(all, func(f Fixture) bool { return f.Ref == ref })
		if i < 0 {
			return nil, fmt.Errorf("no fixture image %q, there are: %s", ref, names(all))
		}
		found = append(found, all[i])
	}
	return found, nil
}

func names(fixtures []Fixture) string {
	var refs []string
	for _, f := range fixtures {
		refs = append(refs, f.Ref)
	}
	return strings.Join(refs, ", ")
}

// Content returns a hash of everything in the image without building it.
func (f Fixture) Content() (string, error) {
	if f.program == "" {
		return busyboxContent()
	}
	return programContent(f.program, f.version)
}

// Build builds the image. The binary comes from the user's cache directory if it was built before.
func (f Fixture) Build(ctx context.Context) (v1.Image, error) {
	content, err := f.Content()
	if err != nil {
		return nil, err
	}
	var layer v1.Layer
	var entrypoint, cmd []string
	if f.program == "" {
		layer, err = busyboxLayer(ctx)
		cmd = []string{"sh"}
	} else {
		layer, err = programLayer(ctx, f.program, f.version, content)
		entrypoint = []string{"/" + f.program}
	}
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", f.Ref, err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", f.Ref, err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", f.Ref, err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = v1.Config{
		Entrypoint:   entrypoint,
		Cmd:          cmd,
		Env:          []string{"PATH=/bin:/"},
		WorkingDir:   "/",
		Labels:       map[string]string{ContentLabel: content},
		ExposedPorts: map[string]struct{}{},
	}
	for _, port := range f.ports {
		file.Config.ExposedPorts[port] = struct{}{}
	}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", f.Ref, err)
	}
	return image, nil
}

func programLayer(ctx context.Context, program, version, content string) (v1.Layer, error) {
	path, err := binary(ctx, program, version, content)
	if err != nil {
		return nil, err
	}
	return layer([]entry{
		{name: "etc/", dir: true},
		{name: "etc/passwd", text: passwd},
		{name: "tmp/", dir: true, mode: 0o1777},
		{name: filepath.Base(path), file: path, mode: 0o755},
	})
}
