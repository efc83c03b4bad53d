package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func nodeKind() kind {
	return kind{
		name: api.KindNode, plural: "nodes", aliases: []string{"no"},
		columns: []string{"NAME", "STATE", "PROJECTS", "CPU", "MEMORY", "HEARTBEAT", "AGE"},
		wide:    []string{"PLATFORM", "ENGINE", "AGENT", "INGRESS", "REASON"},
		row:     nodeRow,
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewNodeServiceClient(conn).ListNodes(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewNodeServiceClient(conn).GetNode(ctx, byName(name)))
		},
		watch: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) (func() (watchEvent, error), error) {
			return receiver(carav1.NewNodeServiceClient(conn).WatchNodes(ctx, &carav1.WatchObjectsRequest{LabelSelector: f.selector}))
		},
		remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewNodeServiceClient(conn).DeleteNode(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

func nodeRow(m proto.Message, now time.Time) []cell {
	n := m.(*carav1.Node)
	info := n.GetStatus().GetInfo()
	reason := ""
	for _, c := range n.GetStatus().GetConditions() {
		if troubled(c) && reason == "" {
			reason = strings.Trim(c.Reason+": "+c.Message, ": ")
		}
	}
	return []cell{
		text(n.GetMetadata().GetName()),
		stateCell(n),
		count(n.GetStatus().GetProjects()),
		text(info.GetCapacity().GetCpu()), quantity(info.GetCapacity().GetMemory()),
		ago(now, n.GetStatus().GetLastHeartbeat()), since(now, n.GetMetadata().GetCreationTimestamp()),
		text(info.GetPlatform()), text(info.GetEngineVersion()), text(info.GetAgentVersion()),
		text(info.GetIngressAddress()), text(reason),
	}
}

// troubled tells whether a node's condition is bad news: Ready, EngineReady and IngressReachable are when they are not True, pressure when
// it is.
func troubled(c *carav1.Condition) bool {
	switch c.Type {
	case api.CondReady, api.CondEngineReady, api.CondIngressReachable:
		return c.Status != api.StatusTrue
	case api.CondDiskPressure, api.CondMemoryPressure:
		return c.Status == api.StatusTrue
	}
	return false
}

func stateCell(n *carav1.Node) cell {
	c := text(n.GetStatus().GetState())
	c.colour = green
	if n.GetStatus().GetState() != api.NodeReady {
		c.colour = red
	}
	if n.GetStatus().GetState() == api.NodeDraining && api.IsTrue(n.GetStatus().GetConditions(), api.CondDrained) {
		c.text = "Drained"
		c.colour = yellow
	}
	if n.GetSpec().GetUnschedulable() && n.GetStatus().GetState() != api.NodeDraining {
		c.text += ",Cordoned"
		c.colour = yellow
	}
	return c
}

// quantity shows bytes as people read them; what is no quantity stays as it is.
func quantity(s string) cell {
	n, err := api.Bytes(s)
	if s == "" || err != nil {
		return text(s)
	}
	return size(n)
}

// size shows bytes.
func size(n int64) cell {
	value, unit := float64(n), ""
	for _, next := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	format := "%.1f%s"
	if unit == "" || value >= 100 {
		format = "%.0f%s"
	}
	return cell{text: fmt.Sprintf(format, value, unit), order: n}
}
