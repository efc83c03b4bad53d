// Package devlog makes the lines that `cara-server dev` prints: a line for each save, with the place of each error, and one
// when a project runs, fails or is deleted. It shows the result of a push. It does no I/O: the caller passes it a watch of
// projects and sources.
package devlog

import (
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/sources"
)

// Printer remembers what it has reported, so that it reports everything once.
type Printer struct {
	// Ingress is the address that serves HTTP by host name, `host:port`.
	Ingress string

	away     bool // the node is not ready
	projects map[string]*told
	problems map[string]bool // problems of the source's newest snapshot
	warnings map[string]bool // its warnings
}

// told is the last report about a project.
type told struct {
	generation int32
	began      time.Time // when its newest generation was first seen
	text       string
}

// Take handles one message of the watch and returns the lines to print. Lines contain no control characters.
func (n *Printer) Take(m *carav1.WatchResponse, now time.Time) (lines []string) {
	if n.projects == nil {
		n.projects = map[string]*told{}
	}
	for _, c := range m.GetChanges() {
		switch o := api.Unwrap(c.GetObject()).(type) {
		case *carav1.Node:
			n.away = o.GetStatus().GetState() != api.NodeReady
		case *carav1.Project:
			lines = append(lines, n.project(o, c.GetDeleted(), now)...)
		case *carav1.Source:
			if !c.GetDeleted() {
				lines = append(lines, n.source(o)...)
			}
		}
	}
	return lines
}

func (n *Printer) project(p *carav1.Project, deleted bool, now time.Time) []string {
	name := p.GetMetadata().GetName()
	t := n.projects[name]
	if deleted {
		if t == nil {
			return nil
		}
		delete(n.projects, name)
		return []string{text.Line(fmt.Sprintf("%s gone %s", name, seconds(now.Sub(t.began))))}
	}
	if t == nil {
		t = &told{}
		n.projects[name] = t
	}
	leaving := p.GetMetadata().GetDeletionTimestamp() != nil
	if t.generation != p.GetMetadata().GetGeneration() || leaving && t.text != "leaving" {
		t.generation, t.began, t.text = p.GetMetadata().GetGeneration(), now, ""
	}
	if leaving {
		t.text = "leaving"
		return nil
	}
	said := n.state(p)
	if said == "" || said == t.text {
		return nil
	}
	t.text = said
	if p.GetStatus().GetPhase() == api.PhaseRunning {
		said = strings.Replace(said, " Running", " Running "+seconds(now.Sub(t.began)), 1)
	}
	return []string{text.Line(said)}
}

// state describes a project at its newest generation; "" if there is nothing to report.
func (n *Printer) state(p *carav1.Project) string {
	name, status := p.GetMetadata().GetName(), p.GetStatus()
	ready := api.FindCondition(status.GetConditions(), api.CondReady)
	current := status.GetObservedGeneration() >= p.GetMetadata().GetGeneration()
	switch phase := status.GetPhase(); {
	case phase == api.PhaseFailed:
		return fmt.Sprintf("%s Failed %s", name, api.FindCondition(status.GetConditions(), api.CondPhase).GetMessage())
	case current && ready.GetStatus() == api.StatusFalse && ready.GetReason() == api.ReasonUpdateFailed:
		return fmt.Sprintf("%s is not updated: %s", name, ready.GetMessage())
	case phase == api.PhaseRunning && current && ready.GetStatus() == api.StatusFalse:
		return fmt.Sprintf("%s is not ready: %s", name, ready.GetMessage())
	case phase == api.PhaseRunning && current:
		return strings.TrimSpace(fmt.Sprintf("%s Running %s", name, strings.Join(n.addresses(status.GetHosts()), " ")))
	case phase == api.PhasePending && !n.away: // at the start, every project waits for the node
		c := api.FindCondition(status.GetConditions(), api.CondScheduled)
		if c.GetStatus() == api.StatusFalse && c.GetReason() != api.ReasonWaiting {
			return fmt.Sprintf("%s Pending %s", name, c.GetMessage())
		}
	}
	return ""
}

// addresses returns URLs for the hosts in a browser on this machine. Names below localhost resolve to this machine; other
// hosts need a Host header.
func (n *Printer) addresses(hosts []string) (urls []string) {
	for _, host := range hosts {
		_, port, _ := strings.Cut(n.Ingress, ":")
		if host == "localhost" || strings.HasSuffix(host, ".localhost") {
			urls = append(urls, "http://"+host+":"+port+"/")
		} else {
			urls = append(urls, "http://"+n.Ingress+"/ (Host: "+host+")")
		}
	}
	return urls
}

// source reports each new warning and error in the newest snapshot, and when all errors are fixed.
func (n *Printer) source(s *carav1.Source) (lines []string) {
	lines = n.warn(s)
	problems := map[string]bool{}
	for _, p := range s.GetStatus().GetSnapshot().GetFileErrors() {
		text := problemLine(p)
		if !n.problems[text] {
			lines = append(lines, text)
		}
		problems[text] = true
	}
	if c := api.FindCondition(s.GetStatus().GetConditions(), api.CondFetchFailed); c.GetStatus() == api.StatusTrue {
		text := text.Line(c.GetMessage())
		if !n.problems[text] {
			lines = append(lines, text)
		}
		problems[text] = true
	}
	if len(n.problems) > 0 && len(problems) == 0 {
		lines = append(lines, "all files are read again without errors")
	}
	n.problems = problems
	return lines
}

func problemLine(p *carav1.FileProblem) string {
	message := p.GetMessage()
	if p.GetPath() != "" {
		message = p.GetPath() + ": " + message
	}
	return text.Line(api.Place(p.GetFile(), p.GetLine(), p.GetColumn()) + " " + message)
}

// warn reports each new warning in the newest snapshot. A directory of Compose files needs another format.
func (n *Printer) warn(s *carav1.Source) (lines []string) {
	warnings, compose := map[string]bool{}, false
	for _, p := range s.GetStatus().GetSnapshot().GetWarnings() {
		text := "warning: " + problemLine(p)
		if !n.warnings[text] {
			lines = append(lines, text)
			compose = compose || sources.SkipsCompose(p)
		}
		warnings[text] = true
	}
	n.warnings = warnings
	if compose {
		lines = append(lines, "to run Compose files, stop this and start cara-server dev --format "+api.FormatCompose)
	}
	return lines
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", max(d, 0).Seconds()) }
