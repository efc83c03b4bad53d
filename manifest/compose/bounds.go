package compose

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/tree"
	"go.yaml.in/yaml/v3"

	"github.com/caravanserai/cara/manifest"
)

// Limits of what the library has to do. Its time grows faster than the files: with the square of the keys of a map, with the length of
// chains of extends, with the cube of the variables in a value, with each port of a range, and with the number of ways from service to
// service. Anyone may push a file to a source.
const (
	maxNodes    = 20_000 // of all files of a project of a source, where an alias counts as what it refers to
	maxServices = 200    // the same, together with services that others extend
	maxExtended = 200_000
	maxVars     = 20_000
	maxVarsIn   = 200 // of one value
	maxPorts    = 1_000
	maxWays     = 20_000
)

// portRange is the end of a port in the short form that names several container ports. It accepts what the library accepts, and more.
var portRange = regexp.MustCompile(`(\d+)\s*-\s*(\d+)\s*(?:/.*)?$`)

// limitPorts makes the library fail before it lists more than maxPorts ports of ranges.
func limitPorts(l *loader.Options) {
	if l.Interpolate == nil { // while the files are read
		return
	}
	ports := 0
	count := func(port string) (any, error) {
		if m := portRange.FindStringSubmatch(port); m != nil {
			first, _ := strconv.Atoi(m[1]) // the largest int if it has too many digits
			last, _ := strconv.Atoi(m[2])
			if ports += max(0, last-first); ports > maxPorts {
				return port, fmt.Errorf("the ranges have more than %d ports; publish fewer ports", maxPorts)
			}
		}
		return port, nil
	}
	casts := maps.Clone(l.Interpolate.TypeCastMapping)
	if casts == nil {
		casts = map[tree.Path]interpolation.Cast{}
	}
	casts[tree.NewPath("services", tree.PathMatchAll, "ports", tree.PathMatchList)] = count
	l.Interpolate.TypeCastMapping = casts
}

// limitWays returns an error if the library would walk more than maxWays ways when it looks for circles of dependencies. It walks
// each way that leads from a service to another.
func limitWays(model map[string]any) error {
	services, _ := model["services"].(map[string]any)
	counted := map[string]int{}
	var ways func(name string) int
	ways = func(name string) int {
		if n, ok := counted[name]; ok {
			return n
		}
		counted[name] = 0 // a circle; the library stops there
		n := 1
		service, _ := services[name].(map[string]any)
		for other := range dependencies(service) {
			n = min(n+ways(other), maxWays+1)
		}
		counted[name] = n
		return n
	}
	all := 0
	for name := range services {
		if all += ways(name); all > maxWays {
			return fmt.Errorf("services: there are more than %d ways along depends_on and links; name only direct dependencies", maxWays)
		}
	}
	return nil
}

// dependencies returns what a service of the merged files depends on. A name that is no service does no harm.
func dependencies(service map[string]any) map[string]bool {
	found := map[string]bool{}
	add := func(name string) {
		name = strings.TrimPrefix(name, "service:")
		name, _, _ = strings.Cut(name, ":")
		found[name] = true
	}
	for _, key := range []string{"depends_on", "links", "volumes_from", "network_mode", "ipc", "pid"} {
		switch v := service[key].(type) {
		case string:
			add(v)
		case map[string]any:
			for name := range v {
				add(name)
			}
		case []any:
			for _, name := range v {
				add(fmt.Sprint(name))
			}
		}
	}
	return found
}

// measure counts what is in a Compose file of a source. The parser has limited the values of each file.
func (g *gatherer) measure(file string, root *yaml.Node) {
	g.walk(file, root)
	for _, key := range []string{"services", "jobs"} {
		if _, v := child(root, key); v != nil {
			g.services += entries(v)
		}
	}
	switch {
	case g.nodes > maxNodes:
		g.refuse(place{file: file}, "the files of the project have more than %d values; make them smaller", maxNodes)
	case g.services > maxServices:
		g.refuse(place{file: file}, "the files of the project have more than %d services; make them smaller", maxServices)
	case g.extends*g.nodes > maxExtended: // each may copy all
		g.refuse(place{file: file}, "%d services extend others, which is too many for files with %d values; make the files smaller, or use anchors", g.extends, g.nodes)
	}
}

// walk counts nodes, keys that are extends, and variables.
func (g *gatherer) walk(file string, n *yaml.Node) {
	n = manifest.Follow(n)
	g.nodes++
	g.variables(placeOf(file, n), n.Value)
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Value == "extends" {
			g.extends++
		}
		g.walk(file, c)
	}
}

// variables counts the variables of a value with braces. The library goes as deep as they are nested, and a goroutine whose stack is
// full ends the program.
func (g *gatherer) variables(at place, value string) {
	vars := strings.Count(strings.ReplaceAll(value, "$$", ""), "${") // $$ is a dollar
	before := g.vars
	g.vars += vars
	switch {
	case vars > maxVarsIn:
		g.refuse(at, "the value has more than %d variables; make it shorter", maxVarsIn)
	case before <= maxVars && g.vars > maxVars:
		g.refuse(at, "the files of the project have more than %d variables; make them smaller", maxVars)
	}
}

// entries counts the keys of a map, together with those that are merged into it.
func entries(n *yaml.Node) int {
	n = manifest.Follow(n)
	all := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch value := manifest.Follow(n.Content[i+1]); {
		case n.Content[i].Value != "<<":
			all++
		case value.Kind == yaml.SequenceNode:
			for _, c := range value.Content {
				all += entries(c)
			}
		default:
			all += entries(value)
		}
	}
	return all
}
