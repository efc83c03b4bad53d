// Package compose converts Compose files into a project and its Secrets.
//
// It stands before the path from a push to a container: `caractrl convert` calls it, and the result is a manifest that people
// commit. The library compose-go reads the files, so merges, anchors, `extends`, `include`, profiles, `.env` files and
// variables mean what they mean to Compose.
//
// Invariants:
//   - Nothing is dropped silently. Each key in the files has a row in Keys, and each key that changes its meaning or has no
//     equivalent has a finding with file, line and column.
//   - A value that looks like a password goes into a Secret and never into the project or a finding.
//   - The result is what manifest.Parse accepts.
package compose

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Options say what to convert.
type Options struct {
	// Files are the Compose files. The later ones override the earlier ones. If there are none, the file with a default name
	// in Dir is used, with its override file.
	Files []string
	// Dir is the directory that relative paths refer to. Empty means the directory of the first file.
	Dir string
	// Name of the project. Empty means the `name:` of the files, or the name of their directory.
	Name string
	// EnvFiles replace the file `.env` as the source of variables.
	EnvFiles []string
	// Profiles to enable. If there are none, those of the variable COMPOSE_PROFILES, as for Compose.
	Profiles []string
	// ManifestDir is the directory that the manifest is written to. Files in it and below become `files[].from`. All other files
	// become part of the manifest, also if this is empty: a source may read no more than the directory of the manifest.
	ManifestDir string
	// Environ has variables as NAME=VALUE. They have precedence over EnvFiles.
	Environ []string

	// tree is the source of the files, root the directory with copies of those that the library reads, and others are the included and
	// extended ones. Not for files on disk.
	tree   Tree
	root   string
	others []*source
}

// Result is a converted project.
type Result struct {
	Project *carav1.Project
	// Secret has the values that must not be in a repository. Nil if there are none.
	Secret *carav1.Secret
	// Findings are in the order of their positions.
	Findings []Finding
	// Origins say where the services and files of the project come from.
	Origins map[string]manifest.Origin

	file string // the first Compose file
}

// Severity says what a finding means for the conversion.
type Severity int

const (
	// Note explains how a key was converted.
	Note Severity = iota
	// Warning means that the key is converted, and should be changed.
	Warning
	// Loss means that the project behaves differently from what the files say.
	Loss
	// Refusal means that the key cannot be converted.
	Refusal
)

func (s Severity) String() string { return [...]string{"note", "warning", "loss", "refused"}[s] }

// Finding is what there is to say about one key.
type Finding struct {
	Severity Severity
	// File as the caller named it. Line and Column count from 1.
	File         string
	Line, Column int
	// Key is the path of the key, such as `services.web.ports`.
	Key     string
	Message string
}

// Worst returns the highest severity of the findings.
func (r *Result) Worst() Severity {
	worst := Note
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Convert reads Compose files and converts them. The error is about files that cannot be read. All other problems are
// findings.
func Convert(ctx context.Context, o Options) (*Result, error) {
	in, err := load(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &converter{ctx: ctx, input: in, to: &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: dnsLabel(in.project.Name)}, Spec: &carav1.ProjectSpec{},
	}}
	c.keys()
	c.rename()
	c.reserveVolumes()
	c.leftOut()
	for _, name := range c.order() {
		c.service(c.project.Services[name])
	}
	if len(c.restarted) > 0 {
		c.say(Note, "services", "without a restart policy, Cara restarts a service when it exits. Set restart: on-failure if one of these runs once: "+strings.Join(c.restarted, ", "))
	}
	c.ingress()
	c.topLevelVolumes()
	c.validate()
	slices.SortStableFunc(c.findings, func(x, y Finding) int {
		return cmp.Or(strings.Compare(x.File, y.File), x.Line-y.Line)
	})
	return &Result{Project: c.to, Secret: c.secret, Findings: c.findings, Origins: c.origins(), file: c.files[0].name}, nil
}

// converter holds one conversion.
type converter struct {
	ctx context.Context //nolint:containedctx // of one conversion
	*input
	to      *carav1.Project
	secret  *carav1.Secret
	names   map[string]string // of services, by their names in the files
	volumes volumeNames
	doors   []door // HTTP ports that become ingress
	// restarted are the services without a restart policy.
	restarted []string
	keyOf     map[*carav1.File]string // keys of the files of a source
	findings  []Finding
}

// say adds a finding about a key.
func (c *converter) say(s Severity, key, message string) {
	at := c.locate(key)
	c.findings = append(c.findings, Finding{Severity: s, File: at.file, Line: at.line, Column: at.column, Key: key, Message: message})
}

// keysOfFields maps fields of a service to the keys that they come from.
var keysOfFields = map[string]string{ //nolint:gochecknoglobals // a table
	"image": "image", "env": "environment", "volumeMounts": "volumes", "files": "volumes", "tmpfs": "tmpfs", "dependsOn": "depends_on",
	"healthcheck": "healthcheck", "workingDir": "working_dir", "user": "user", "stopGracePeriod": "stop_grace_period",
	"stopSignal": "stop_signal", "capAdd": "cap_add", "capDrop": "cap_drop", "labels": "labels", "ulimits": "ulimits", "shmSize": "shm_size",
}

var fieldName = regexp.MustCompile(`\w+`)

// validate adds the problems that the server would find. Their causes are values that Compose accepts and Cara does not.
func (c *converter) validate() {
	for _, e := range validate.Object(c.to) {
		key, message := "services", e.GetField()+" "+e.GetMessage()
		for i, svc := range c.to.GetSpec().GetServices() {
			field, ok := strings.CutPrefix(e.GetField(), "spec.services["+itoa(i)+"]")
			if !ok {
				continue
			}
			key = "services." + c.original(svc.GetName())
			first := fieldName.FindString(field)
			if from := keysOfFields[first]; from != "" {
				key += "." + from
				message = strings.TrimPrefix(strings.TrimPrefix(field, "."), "image") + " " + e.GetMessage()
			}
			if first == "image" && svc.GetImage() == "" {
				key = "" // process has said it
			}
		}
		if key != "" {
			c.say(Refusal, key, strings.TrimSpace(message))
		}
	}
}

// original returns the name of a service in the files.
func (c *converter) original(name string) string {
	for from, to := range c.names {
		if to == name {
			return from
		}
	}
	return name
}

// order returns the names of the services in the order of the files. Services of other files follow, sorted.
func (c *converter) order() []string {
	var names []string
	for _, f := range c.files {
		for _, name := range f.keysOf("services") {
			if _, ok := c.project.Services[name]; ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range c.project.ServiceNames() {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// leftOut names the services that no enabled profile has.
func (c *converter) leftOut() {
	for _, name := range slices.Sorted(maps.Keys(c.project.DisabledServices)) {
		profiles := strings.Join(c.project.DisabledServices[name].Profiles, ", ")
		c.say(Note, "services."+name+".profiles", "the service is left out, because none of its profiles is enabled: "+profiles)
	}
}

func (c *converter) service(s types.ServiceConfig) {
	out := &carav1.Service{Name: c.names[s.Name], Image: s.Image}
	c.to.Spec.Services = append(c.to.Spec.Services, out)
	w := &service{converter: c, in: s, out: out, key: "services." + s.Name}
	w.process()
	w.environment()
	w.dependencies()
	w.healthcheck()
	w.restart()
	w.resources()
	w.security()
	mounts{w}.all()
	files{w}.all()
	w.network()
	w.ports()
	w.deploy()
}
