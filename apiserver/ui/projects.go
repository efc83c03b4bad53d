package ui

import (
	"context"
	"net/url"
	"slices"
	"strconv"
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
	Query, Phase string
	Phases       []choice
	Items        []*carav1.Project
	All, Found   int
	From, To     int
	Prev, Next   string // addresses of the windows before and after
	MayCreate    bool
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
	l := listProjects(all.GetItems(), clipped(r.query.Get("q")), r.query.Get("phase"), r.query.Get("from"))
	return view{title: "Projects", nav: "projects", template: "projects", data: l, kinds: []string{api.KindProject, api.KindNode}}, nil
}

func clipped(q string) string { return strings.TrimSpace(q[:min(len(q), maxQuery)]) }

// listProjects filters the projects and cuts the window that begins at row from.
func listProjects(all []*carav1.Project, q, phase, from string) projectList {
	l := projectList{Query: q, Phase: phase, All: len(all)}
	words := strings.Fields(strings.ToLower(q))
	counts := map[string]int{}
	var found []*carav1.Project
	for _, p := range all {
		if len(words) > 0 && !matches(p, words) {
			continue
		}
		counts[p.GetStatus().GetPhase()]++
		if phase == "" || phase == p.GetStatus().GetPhase() {
			found = append(found, p)
		}
	}
	l.Found = len(found)
	l.From, l.To = span(from, len(found))
	l.Items = found[l.From:l.To]
	l.link(counts)
	return l
}

// link fills in the addresses: of the other windows, and of the same filter with another phase.
func (l *projectList) link(counts map[string]int) {
	if l.From > 0 {
		l.Prev = projectsURL(l.Query, l.Phase, max(0, l.From-window))
	}
	if l.To < l.Found {
		l.Next = projectsURL(l.Query, l.Phase, l.To)
	}
	for _, phase := range api.Phases() {
		value := string(phase)
		if counts[value] > 0 || value == l.Phase {
			c := choice{Value: value, Count: counts[value], Chosen: value == l.Phase, Link: projectsURL(l.Query, value, 0)}
			if c.Chosen {
				c.Link = projectsURL(l.Query, "", 0)
			}
			l.Phases = append(l.Phases, c)
		}
	}
}

func projectsURL(q, phase string, from int) string {
	v := url.Values{}
	for key, value := range map[string]string{"q": q, "phase": phase} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if from > 0 {
		v.Set("from", strconv.Itoa(from))
	}
	if len(v) == 0 {
		return Prefix + "projects"
	}
	return Prefix + "projects?" + v.Encode()
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

// hasLabels reports whether each word is in a label.
func hasLabels(labels map[string]string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !hasLabel(labels, word) })
}

func hasLabel(labels map[string]string, word string) bool {
	for key, value := range labels {
		if has(key+"="+value, word) {
			return true
		}
	}
	return false
}
