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

// maxLabel is the length of the longest DNS label.
const maxLabel = 63

// dnsLabel returns the DNS label that is closest to a name.
func dnsLabel(name string) string {
	label := noLabel.ReplaceAllString(strings.ToLower(name), "-")
	label = strings.Trim(label, "-")
	return strings.Trim(label[:min(len(label), maxLabel)], "-")
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
	written, _ := c.model["name"].(string)
	switch name := c.to.GetMetadata().GetName(); {
	case !api.IsName(name):
		c.say(Refusal, "name", "the project's name "+quoteOr(c.project.Name, "")+" is not a DNS label: use --name")
	case written != "" && written != name:
		c.say(Note, "name", "the project is named "+name)
	}
}

func quoteOr(s, instead string) string {
	if s == "" {
		return instead
	}
	return `"` + s + `"`
}

// volumeKey is how volumeNames know a named volume of the files. Paths are absolute, so they differ from it.
func volumeKey(name string) string { return "volume " + name }

// volumeNames are the names of the volumes that directories and volumes of the files become.
type volumeNames struct {
	of    map[string]string // by the path of the directory, or the volumeKey
	taken map[string]int    // by name: 1, or the last number that was put behind it
}

// reserveVolumes gives the named volumes their names before directories get any.
func (c *converter) reserveVolumes() {
	c.volumes = volumeNames{of: map[string]string{}, taken: map[string]int{}}
	for _, name := range slices.Sorted(maps.Keys(c.project.Volumes)) {
		c.volumes.name(volumeKey(name), name)
	}
}

// name returns the name of the volume that a directory or a volume of the files becomes. Different ones never share a name,
// because their data would be mixed: if the last part of the path is taken, the part before it helps, or a number. Each number
// is tried once, and a long name is cut so that the number fits behind it.
func (v volumeNames) name(from, path string) string {
	if name, ok := v.of[from]; ok {
		return name
	}
	name := dnsLabel(filepath.Base(path))
	if v.taken[name] > 0 {
		name = dnsLabel(filepath.Base(filepath.Dir(path)) + "-" + name)
	}
	for base := name; v.taken[name] > 0; {
		v.taken[base]++
		number := "-" + itoa(v.taken[base])
		name = dnsLabel(base[:min(len(base), maxLabel-len(number))] + number)
	}
	v.of[from], v.taken[name] = name, 1
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
