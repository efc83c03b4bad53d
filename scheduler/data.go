package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// NodeData is what one node has of a project's data.
type NodeData struct {
	Node    string
	Volumes []string // names in the project's spec
}

func (n NodeData) String() string {
	noun := "volume"
	if len(n.Volumes) > 1 {
		noun = "volumes"
	}
	return fmt.Sprintf("%s (%s %s)", n.Node, noun, strings.Join(n.Volumes, ", "))
}

// dataOf returns the data that nodes have reported for a project, sorted by node. It is empty if the project has no data
// yet: then any node may get the project.
func dataOf(p *carav1.Project) []NodeData {
	var data []NodeData
	for _, node := range api.DataNodes(p) {
		at := NodeData{Node: node}
		for _, use := range p.GetStatus().GetVolumes() {
			if use.GetNode() == node && use.GetMade() {
				at.Volumes = append(at.Volumes, use.GetName())
			}
		}
		data = append(data, at)
	}
	return data
}

// dataOn reports whether a node has all data of the project.
func (d *Demand) dataOn(node string) bool {
	return len(d.Data) == 0 || len(d.Data) == 1 && d.Data[0].Node == node
}

// where says where the data of a project is. It is empty if there is none. nodes are those that the project may run on.
func (d *Demand) where(nodes []*Candidate) string {
	switch {
	case len(d.Data) == 0:
		return ""
	case len(d.Data) > 1:
		return "; " + d.scattered()
	}
	text, at := "; the data is on "+d.Data[0].String(), d.Data[0]
	if !slices.ContainsFunc(nodes, func(c *Candidate) bool { return c.Name == at.Node }) {
		restore := ""
		if d.Backup {
			restore = fmt.Sprintf("restore its last backup (caractrl restore %s), ", d.Project)
		}
		text += fmt.Sprintf(", and the cluster has no node %s: let that machine join again under this name, %s"+
			"or give up the data and start with %s (caractrl recreate volume %s)",
			at.Node, restore, map[bool]string{true: "an empty volume", false: "empty volumes"}[len(at.Volumes) == 1], strings.Join(d.names(at), ", "))
	}
	return text
}

// names returns the names of the Volume objects.
func (d *Demand) names(at NodeData) []string {
	names := make([]string, len(at.Volumes))
	for i, v := range at.Volumes {
		names[i] = api.VolumeName(d.Project, v)
	}
	return names
}

// scattered says that several nodes have data of the project, and what to do about it.
func (d *Demand) scattered() string {
	places := make([]string, len(d.Data))
	for i, at := range d.Data {
		places[i] = at.String()
	}
	return fmt.Sprintf("the data is on %s, but a project runs on one node: remove the volumes of the other nodes from the manifest; "+
		"their data is kept until you delete it (caractrl delete volume %s)", strings.Join(places, " and "), api.VolumeName(d.Project, "NAME"))
}

// bound returns why the data of a project keeps it on a node; empty if it does not. Without it, Explain would report that
// the other nodes do not have the data.
func (d *Demand) bound(node string) string {
	switch {
	case len(d.Data) > 1:
		return d.scattered()
	case len(d.Data) == 1 && d.Data[0].Node == node:
		return "its data is on " + d.Data[0].String()
	}
	return ""
}
