package manifest

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/manifest/sops"
)

// ComposeFile is what Foreign says about Compose files.
const ComposeFile = "a Compose file"

// Foreign reports whether a file has no document of Cara, and what it looks like instead: `a Compose file`. A document is
// Cara's if it has our apiVersion or one of our kinds, whatever else is wrong with it. A file that cannot be parsed is
// foreign only if its format is recognized, because it may be a manifest with a syntax error.
func Foreign(file string, data []byte) (looks string, foreign bool) {
	p := newParser(file, Limits{})
	text, ok := trees{p}.scan(data)
	if !ok {
		return foreignLarge(file, data)
	}
	if nomadJob.Match(text) {
		return "a Nomad job", true
	}
	read := trees{p}.yamlTrees
	if strings.EqualFold(path.Ext(file), ".json") {
		read = trees{p}.jsonTrees
	}
	var first *yaml.Node
	for root := range read(text) {
		if ours(root) {
			return "", false
		}
		if sops.Find(root) != nil {
			return "a file that SOPS has encrypted, which is not a manifest or needs spec.decryption in the source", true
		}
		if first == nil {
			first = root
		}
	}
	if len(p.problems) > 0 {
		return foreignText(file, text)
	}
	if first == nil {
		return "", false // the document is empty
	}
	if template(text) {
		return "a Helm template", true
	}
	return looksLike(file, first), true
}

// nomadJob matches a Nomad job as HCL, whose first line other than comments begins a job, and as JSON.
var nomadJob = regexp.MustCompile(`\A(?:\s|(?:#|//)[^\n]*\n)*(?:job\s+"[^"\n]*"\s*\{|\{\s*"Job"\s*:)`)

// KnownName returns what a file is if its name alone shows it: `an npm package`.
func KnownName(file string) string {
	name := strings.ToLower(path.Base(file))
	switch {
	case name == "package.json", name == "package-lock.json", name == "npm-shrinkwrap.json", name == "pnpm-lock.yaml", name == "pnpm-workspace.yaml":
		return "a file of an npm package"
	case name == "composer.json", name == "tsconfig.json", name == "deno.json", name == "renovate.json", name == "angular.json":
		return "a settings file of another tool"
	case name == "chart.yaml":
		return "a Helm chart"
	case name == "kustomization.yaml", name == "kustomization.yml":
		return "a kustomization"
	case slices.Contains([]string{".yaml", ".yml"}, path.Ext(name)) && (strings.HasPrefix(name, "docker-compose") || strings.HasPrefix(name, "compose.")):
		return ComposeFile
	case slices.Contains(strings.Split(strings.ToLower(file), "/"), "workflows"):
		return "a GitHub workflow"
	}
	return ""
}

// ours reports whether a document looks like a manifest of Cara.
func ours(root *yaml.Node) bool {
	version, kind := value(root, "apiVersion"), value(root, "kind")
	if strings.HasPrefix(strings.ToLower(version), strings.ToLower(group())) {
		return true
	}
	for _, k := range kinds() {
		if strings.EqualFold(kind, k) {
			return !kubernetes(version, kind)
		}
	}
	return false
}

func group() string {
	g, _, _ := strings.Cut(api.APIVersion, "/")
	return g
}

func kinds() []string {
	return []string{api.KindProject, api.KindNode, api.KindSource, api.KindSecret, api.KindEvent, "Volume"}
}

// kubernetes reports whether an apiVersion is from Kubernetes, for a kind with the same name as ours.
func kubernetes(version, kind string) bool {
	if version == "v1" {
		return slices.Contains([]string{"secret", "node", "event"}, strings.ToLower(kind))
	}
	g, _, ok := strings.Cut(version, "/")
	return ok && strings.Contains(g, ".")
}

// value returns the text of a top-level key, ignoring its case.
func value(root *yaml.Node, key string) string {
	if root = Follow(root); root == nil || root.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if strings.EqualFold(root.Content[i].Value, key) {
			if v := Follow(root.Content[i+1]); v != nil && v.Kind == yaml.ScalarNode {
				return v.Value
			}
		}
	}
	return ""
}

func has(root *yaml.Node, keys ...string) bool {
	for _, k := range keys {
		if _, v := child(root, k); v == nil {
			return false
		}
	}
	return true
}

// looksLike describes a document. It quotes only its kind.
func looksLike(file string, root *yaml.Node) string {
	root = Follow(root)
	if known := KnownName(file); known != "" {
		return known
	}
	_, spec := child(root, "spec")
	switch {
	case root == nil || root.Kind != yaml.MappingNode:
		return "text or a list, not a manifest"
	case has(root, "apiVersion", "kind"):
		if kind := value(root, "kind"); regexp.MustCompile(`^[A-Za-z]{1,40}$`).MatchString(kind) {
			return fmt.Sprintf("a Kubernetes manifest (%s)", kind)
		}
		return "a Kubernetes manifest"
	case spec != nil && has(Follow(spec), "services"):
		return fmt.Sprintf("a project without its head; add apiVersion: %s and kind: Project", api.APIVersion)
	case has(root, "jobs", "on"):
		return "a GitHub workflow"
	case has(root, "stages"), has(root, "image", "script"):
		return "a GitLab pipeline"
	case has(root, "services"):
		return ComposeFile
	case has(root, "openapi"), has(root, "swagger"):
		return "an OpenAPI document"
	case has(root, "$schema"):
		return "a JSON schema or a settings file of another tool"
	}
	return "a file of another tool: it has no apiVersion and no kind"
}

// marked reports whether a text has the apiVersion or a kind of Cara. It also works for a file that cannot be parsed.
func marked(text []byte) bool {
	version := regexp.MustCompile(`(?i)apiVersion["']?\s*:\s*["']?` + group())
	kind := regexp.MustCompile(`(?im)(^|[{,]\s*)["']?kind["']?\s*:\s*["']?(` + strings.Join(kinds(), "|") + `)\b`)
	return version.Match(text) || kind.Match(text)
}

// foreignText handles a file that cannot be parsed.
func foreignText(file string, text []byte) (looks string, foreign bool) {
	switch known := KnownName(file); {
	case marked(text):
		return "", false
	case known != "":
		return known, true
	case template(text):
		return "a Helm template", true
	case regexp.MustCompile(`(?m)^apiVersion\s*:`).Match(text):
		return "a Kubernetes manifest", true
	}
	return "", false
}

// template reports whether a text has the actions of a Helm template. Some of them are valid YAML.
func template(text []byte) bool {
	return regexp.MustCompile(`\{\{-?\s*(\.(Values|Release|Chart|Files|Capabilities)\b|(include|define|if|with|range|template|end)\b)`).Match(text)
}

// foreignLarge handles a file that is too large to parse, or not text.
func foreignLarge(file string, data []byte) (looks string, foreign bool) {
	known := KnownName(file)
	switch {
	case marked(data), !utf8.Valid(data), bytes.IndexByte(data, 0) >= 0:
		return "", false
	case known != "":
		return known, true
	}
	return "a large file of another tool: it has no apiVersion and no kind of Cara's", true
}
