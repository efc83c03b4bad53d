package kind

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Node is the kind Node.
func Node() Kind {
	return Kind{
		Name: api.KindNode, Plural: "nodes", aliases: []string{"no"},
		Columns: []string{"NAME", "STATE", "PROJECTS", "CPU", "MEMORY", "HEARTBEAT", "AGE"},
		wide:    []string{"PLATFORM", "ENGINE", "AGENT", "INGRESS", "REASON"},
		Row:     nodeRow, Describe: describeNode,
		List: lister(carav1.NewNodeServiceClient, carav1.NodeServiceClient.ListNodes, byLabel),
		Get:  getter(carav1.NewNodeServiceClient, carav1.NodeServiceClient.GetNode),
		Watch: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
			return receiver(carav1.NewNodeServiceClient(conn).WatchNodes(ctx, &carav1.WatchObjectsRequest{LabelSelector: f.Selector}))
		},
		Remove: remover(carav1.NewNodeServiceClient, carav1.NodeServiceClient.DeleteNode),
	}
}

func describeNode(ctx context.Context, p Page, m proto.Message) error {
	n := m.(*carav1.Node)
	st := n.GetStatus()
	info := st.GetInfo()
	p.meta(n.GetMetadata())
	p.Field("State", StateCell(n).Text)
	p.Field("Heartbeat", term.Ago(p.Now, st.GetLastHeartbeat()).Text)
	p.Field("Platform", info.GetPlatform())
	p.Field("Engine", info.GetEngineVersion())
	p.Field("Agent", info.GetAgentVersion())
	p.Field("Ingress", ingressText(st))
	if more := info.GetAllowedCapabilities(); len(more) > 0 {
		p.Field("Allows", "capabilities "+strings.Join(more, ", "))
	}
	p.Field("Offers", offerText(info.GetPortOffer()))
	c := info.GetCapacity()
	p.Field("Capacity", fmt.Sprintf("cpu %s, memory %s, disk %s (%s free), %d project networks",
		term.Dash(c.GetCpu()), Quantity(c.GetMemory()).Text, Quantity(c.GetDisk()).Text, Quantity(c.GetDiskFree()).Text, c.GetSubnets()))
	p.conditions(st.GetConditions())
	p.nodePorts(n)
	if err := p.nodeProjects(ctx, n.GetMetadata().GetName()); err != nil {
		return err
	}
	return p.nodeVolumes(ctx, n)
}

// ingressText returns where other nodes reach the ingress, whether it is an entry, and whether it serves public hosts.
func ingressText(st *carav1.NodeStatus) string {
	var more []string
	if st.GetInfo().GetEntry() {
		more = append(more, "entry: has the routes of all hosts")
	}
	if st.GetPublicIngress() {
		more = append(more, "serves public hosts")
	}
	if len(more) == 0 {
		return st.GetInfo().GetIngressAddress()
	}
	return st.GetInfo().GetIngressAddress() + " (" + strings.Join(more, "; ") + ")"
}

// nodeProjects shows the projects of a node, and where they move to.
func (p Page) nodeProjects(ctx context.Context, node string) error {
	projects, err := Project().List(ctx, p.Conn, Filter{Node: node})
	if err != nil {
		return err
	}
	p.section(fmt.Sprintf("Projects (%d)", len(projects)))
	for _, m := range projects {
		project := m.(*carav1.Project)
		line := "  " + term.Line(project.GetMetadata().GetName()) + " " + term.Line(project.GetStatus().GetPhase())
		switch move := project.GetStatus().GetMove(); {
		case move.GetRestore() != nil:
			line += ", is being restored"
			if move.GetTo() != "" {
				line += " on " + term.Line(move.GetTo())
			}
		case move != nil:
			line += ", moves to " + term.Line(move.GetTo())
		}
		fmt.Fprintln(p.Out, line)
	}
	return nil
}

func nodeRow(m proto.Message, now time.Time) []term.Cell {
	n := m.(*carav1.Node)
	info := n.GetStatus().GetInfo()
	reason := ""
	for _, c := range n.GetStatus().GetConditions() {
		if api.NodeTroubled(c) && reason == "" {
			reason = strings.Trim(c.Reason+": "+c.Message, ": ")
		}
	}
	return []term.Cell{
		term.Text(n.GetMetadata().GetName()),
		StateCell(n),
		term.Count(n.GetStatus().GetProjects()),
		term.Text(info.GetCapacity().GetCpu()), Quantity(info.GetCapacity().GetMemory()),
		term.Ago(now, n.GetStatus().GetLastHeartbeat()), term.Since(now, n.GetMetadata().GetCreationTimestamp()),
		term.Text(info.GetPlatform()), term.Text(info.GetEngineVersion()), term.Text(info.GetAgentVersion()),
		term.Text(info.GetIngressAddress()), term.Text(reason),
	}
}

// StateCell returns a node's state with its colour. What keeps a Ready node from starting containers is part of it.
func StateCell(n *carav1.Node) term.Cell {
	c := term.Text(n.GetStatus().GetState())
	c.Colour = term.Green
	if n.GetStatus().GetState() != api.NodeReady {
		c.Colour = term.Red
	}
	if n.GetStatus().GetState() == api.NodeDraining && api.IsTrue(n.GetStatus().GetConditions(), api.CondDrained) {
		c.Text = "Drained"
		c.Colour = term.Yellow
	}
	if n.GetSpec().GetUnschedulable() && n.GetStatus().GetState() != api.NodeDraining {
		c.Text += ",Cordoned"
		c.Colour = term.Yellow
	}
	if n.GetStatus().GetState() != api.NodeReady {
		return c // its other conditions are old
	}
	conditions := n.GetStatus().GetConditions()
	for _, pressure := range []string{api.CondDiskPressure, api.CondMemoryPressure} {
		if api.IsTrue(conditions, pressure) {
			c.Text += "," + pressure
			c.Colour = term.Yellow
		}
	}
	if api.FindCondition(conditions, api.CondEngineReady).GetStatus() == api.StatusFalse {
		c.Text += ",EngineNotReady"
		c.Colour = term.Red
	}
	return c
}

// Quantity formats a quantity of bytes. It does not change an invalid quantity.
func Quantity(s string) term.Cell {
	n, err := syntax.Bytes(s)
	if s == "" || err != nil {
		return term.Text(s)
	}
	return Size(n)
}

// Size formats a number of bytes.
func Size(n int64) term.Cell {
	value, unit := text.Scale(float64(n))
	format := "%.1f%s"
	if unit == "" || value >= 100 {
		format = "%.0f%s"
	}
	return term.Cell{Text: fmt.Sprintf(format, value, unit), Order: n}
}
