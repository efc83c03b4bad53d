package compose

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
)

var noLabel = regexp.MustCompile(`[^a-z0-9-]+`)

// dnsLabel returns the DNS label that is closest to a name.
func dnsLabel(name string) string {
	label := noLabel.ReplaceAllString(strings.ToLower(name), "-")
	label = strings.Trim(label, "-")
	return strings.Trim(label[:min(len(label), 63)], "-")
}

// rename gives each service a name that is a DNS label.
func (c *converter) rename() {
	c.names = map[string]string{}
	taken := map[string]string{}
	for _, name := range c.order() {
		label := dnsLabel(name)
		if other, ok := taken[label]; ok || label == "" {
			c.say(Refusal, "services."+name, "its name as a DNS label would be "+quoteOr(label, "empty")+", as that of service "+quoteOr(other, "no other")+": rename it")
		}
		taken[label] = name
		c.names[name] = label
		if label != name {
			severity, text := Note, "is named "+label+", because service names are DNS labels"
			if c.mentioned(name, name) {
				severity, text = Loss, text+". Other services refer to "+name+": change it there"
			}
			c.say(severity, "services."+name, text)
		}
	}
	if name := c.to.GetMetadata().GetName(); !api.IsName(name) {
		c.say(Refusal, "name", "the project's name "+quoteOr(c.project.Name, "")+" is not a DNS label: use --name")
	}
}

func quoteOr(s, instead string) string {
	if s == "" {
		return instead
	}
	return `"` + s + `"`
}

// volumeKey is how volumeName knows a named volume of the files. Paths are absolute, so they differ from it.
func volumeKey(name string) string { return "volume " + name }

// reserveVolumes gives the named volumes their names before directories get any.
func (c *converter) reserveVolumes() {
	c.volumes = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.project.Volumes)) {
		c.volumeName(volumeKey(name), name)
	}
}

// volumeName returns the name of the volume that a directory or a volume of the files becomes. Different ones never share a
// name, because their data would be mixed: if the last part of the path is taken, the part before it helps, or a number.
func (c *converter) volumeName(from, path string) string {
	for name, other := range c.volumes {
		if other == from {
			return name
		}
	}
	name := dnsLabel(filepath.Base(path))
	if c.volumes[name] != "" {
		name = dnsLabel(filepath.Base(filepath.Dir(path)) + "-" + name)
	}
	for base, n := name[:min(len(name), 60)], 2; c.volumes[name] != ""; n++ {
		name = dnsLabel(base + "-" + itoa(n))
	}
	c.volumes[name] = from
	return name
}

// mentioned reports whether the environment or a command of another service contains a name as a word.
func (c *converter) mentioned(service, name string) bool {
	word := regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(name) + `($|[^\w-])`)
	for _, s := range c.project.Services {
		if s.Name == service {
			continue
		}
		for _, value := range s.Environment {
			if value != nil && word.MatchString(*value) {
				return true
			}
		}
		if word.MatchString(strings.Join(s.Command, " ")) || word.MatchString(strings.Join(s.Entrypoint, " ")) {
			return true
		}
	}
	return false
}
