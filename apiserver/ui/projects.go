package ui

import (
	"context"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// window is how many rows of a list the browser gets.
	window = 100
	// maxQuery limits a filter.
	maxQuery = 200
)

// projectList is a window of the projects that match a filter.
type projectList struct {
	list[*carav1.Project]
	Phases []choice
}

// choice is one value of a filter, with how many objects have it.
type choice struct {
	Value, Link string
	Count       int
	Chosen      bool
}

func (vs views) projects(ctx context.Context, r request) (view, error) {
	all, err := vs.api.projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
	if err != nil {
		return view{}, err
	}
	return view{title: "Projects", nav: "projects", template: "projects", data: listProjects(r, all.GetItems()), kinds: []string{api.KindProject, api.KindNode}}, nil
}

func clipped(q string) string { return strings.TrimSpace(q[:min(len(q), maxQuery)]) }

// listProjects filters the projects by words and by phase, and cuts the window that the query asks for.
func listProjects(r request, all []*carav1.Project) projectList {
	l := projectList{list: list[*carav1.Project]{rows: rowsOf(r, "projects", len(all))}}
	l.Phase = r.query.Get("phase")
	words, counts := l.words(), map[string]int{}
	for _, p := range all {
		if len(words) > 0 && !matches(p, words) {
			continue
		}
		counts[p.GetStatus().GetPhase()]++
		if l.Phase == "" || l.Phase == p.GetStatus().GetPhase() {
			l.Items = append(l.Items, p)
		}
	}
	l.cut(r)
	l.Phases = l.choices(counts)
	return l
}

// choices returns the phases of the projects that match the words. Each has the address of the same filter with that phase, or without
// it if it is chosen.
func (r rows) choices(counts map[string]int) (out []choice) {
	for _, phase := range api.Phases() {
		value := string(phase)
		c := choice{Value: value, Count: counts[value], Chosen: value == r.Phase}
		if c.Count == 0 && !c.Chosen {
			continue
		}
		other := r
		other.Phase = value
		if c.Chosen {
			other.Phase = ""
		}
		c.Link = other.link(0)
		out = append(out, c)
	}
	return out
}

// matches reports whether each word is in a text by which people know a project. words are in lower case.
func matches(p *carav1.Project, words []string) bool {
	meta, st := p.GetMetadata(), p.GetStatus()
	for _, word := range words {
		if !has(meta.GetName(), word) && !has(meta.GetOwner(), word) && !has(st.GetNodeRef(), word) && !has(st.GetPhase(), word) &&
			!slices.ContainsFunc(st.GetHosts(), func(host string) bool { return has(host, word) }) &&
			!hasLabel(meta.GetLabels(), word) && !hasReason(p, word) {
			return false
		}
	}
	return true
}

func has(s, word string) bool {
	return strings.Contains(s, word) || strings.Contains(strings.ToLower(s), word)
}

func hasReason(p *carav1.Project, word string) bool {
	reason, _ := api.Telling(p)
	return has(reason, word)
}

func hasLabel(labels map[string]string, word string) bool {
	for key, value := range labels {
		if has(key+"="+value, word) {
			return true
		}
	}
	return false
}
