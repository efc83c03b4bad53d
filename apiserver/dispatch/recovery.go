package dispatch

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// After a recovery the state may be older than what nodes have obeyed: a project may run on another node than the state says, and
// with an epoch that the state would use again. So each node tells what it has before any node gets assignments. The state may also be
// wrong about which nodes are there, so each node has one full time-out to connect. One that comes later tells then, and holds nothing.
// Until the nodes have told, they keep running what they have.
//
// Node.status.recovery records that a node has told, and Recovery.settled that nobody waits any more. Both are in the store, so a
// restart of the server repeats nothing, and every server knows them.

// obeyedAtATime limits the projects of one transaction.
const obeyedAtATime = 16

// maxTold limits how many names an event has.
const maxTold = 20

// untoldEvery is how often the log says whom a recovery waits for.
const untoldEvery = 20 * time.Second

// Recovery waits for what the nodes tell after a recovery.
type Recovery struct{ DB *state.DB }

// Keep settles a recovery: it waits until each node has told what it has, or counts as lost. A node
// has the time within to connect, also if the state has it as NotReady. Every server can run it.
func (r Recovery) Keep(ctx context.Context, within time.Duration) error {
	if r.DB.Cache.Filled(ctx) != nil || settled(r.DB.Cache) {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := r.DB.Cache.Await(bounded, func() bool { return allTold(r.DB.Cache, false) })
	for ctx.Err() == nil && err != nil {
		err = r.awaitTold(ctx)
	}
	for ctx.Err() == nil && !settled(r.DB.Cache) {
		if err = r.settle(ctx); err != nil {
			r.DB.Logger.Warn("the recovery is not settled: no node gets assignments yet", "error", err)
			r.pause(ctx)
		}
	}
	return nil
}

// awaitTold waits a while until each node has told what it has, or is NotReady, and logs whom it waits for.
func (r Recovery) awaitTold(ctx context.Context) error {
	if waits := slices.Collect(untold(r.DB.Cache, true)); len(waits) > 0 {
		r.DB.Logger.Warn("after the recovery no node gets assignments until these nodes have told what they run, or are NotReady: look at the logs of "+
			"their agents, and stop the agent of a machine that cannot tell; containers keep running meanwhile",
			"nodes", strings.Join(waits[:min(len(waits), maxTold)], ", "), "count", len(waits))
	}
	bounded, cancel := context.WithTimeout(ctx, untoldEvery)
	defer cancel()
	return r.DB.Cache.Await(bounded, func() bool { return allTold(r.DB.Cache, true) })
}

// settle records that nobody waits any more.
func (r Recovery) settle(ctx context.Context) error {
	return r.DB.Transact(ctx, func(t *state.Tx) error {
		record, ok := state.Read[*carav1.Recovery](t, state.RecoveryName)
		if !ok || record.GetSettled() {
			return nil
		}
		record = proto.CloneOf(record)
		record.Settled = true
		t.Put(record)
		return nil
	})
}

func (r Recovery) pause(ctx context.Context) {
	select {
	case <-time.After(followRetry):
	case <-ctx.Done():
	}
}

// settled reports whether there was no recovery, or nobody waits for nodes any more.
func settled(r state.Reader) bool {
	rec, ok := state.Get[*carav1.Recovery](r, state.RecoveryName)
	return !ok || rec.GetSettled()
}

// untold returns the names of the nodes that have not told what they have since the last recovery. lost leaves out nodes that are NotReady.
func untold(r state.Reader, lost bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		view := r.View()
		id := state.Recovered(view)
		view.Ascend(api.KindNode, "", "", func(e *state.Entry) bool {
			n, _ := e.Message().(*carav1.Node)
			told := n.GetStatus().GetRecovery() == id || lost && n.GetStatus().GetState() == api.NodeNotReady
			return told || yield(e.Name)
		})
	}
}

// allTold reports whether untold has no names. It ends at the first one: it runs after each commit, and each node that tells makes one.
func allTold(r state.Reader, lost bool) bool {
	for range untold(r, lost) {
		return false
	}
	return true
}

// asks reports whether the node must tell what it has. Agents of older versions cannot: they count as having told.
func (r Recovery) asks(ctx context.Context, me *Session) (bool, error) {
	if !owes(r.DB.Cache, me.Node) {
		return false, nil
	}
	if me.can(api.CapabilityRecovery) {
		return true, nil
	}
	return false, r.told(ctx, me.Node, state.Recovered(r.DB.Cache), "")
}

// await returns when this node may get its assignments.
func (r Recovery) await(ctx context.Context, me *Session, asks bool) error {
	if asks {
		select {
		case <-me.obeyed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if settled(r.DB.Cache) {
		return nil
	}
	r.DB.Logger.Info("an agent waits for the other nodes after a recovery", "node", me.Node)
	return r.DB.Cache.Await(ctx, func() bool { return settled(r.DB.Cache) })
}

// obey handles what a node has obeyed so far. Only listen calls it.
func (r Recovery) obey(ctx context.Context, me *Session, obeyed *carav1.Obeyed) error {
	if obeyed == nil || me.answered {
		return nil
	}
	if !owes(r.DB.Cache, me.Node) { // nobody asked, or an earlier session has told it: it is not believed
		me.hasTold()
		return nil
	}
	names := map[rules.Later][]string{}
	for part := range slices.Chunk(obeyed.GetProjects(), obeyedAtATime) {
		var now map[rules.Later][]string
		err := r.DB.Transact(ctx, func(t *state.Tx) error {
			now = map[rules.Later][]string{}
			record, _ := state.Read[*carav1.Recovery](t, state.RecoveryName)
			n, _ := state.Read[*carav1.Node](t, me.Node)
			if record.GetId() == "" || n.GetStatus().GetRecovery() == record.GetId() {
				return nil // told meanwhile
			}
			for _, o := range part {
				later, err := rules.TakeLater(t, me.Node, o, record.GetSettled())
				if err != nil {
					return err
				}
				now[later] = append(now[later], o.GetName())
			}
			return nil
		})
		if err != nil {
			return heartbeatError(err)
		}
		for later, more := range now {
			names[later] = append(names[later], more...)
		}
	}
	message := toldMessage(names)
	if message != "" {
		r.DB.Logger.Warn("a node has obeyed what the recovered state does not know", "node", me.Node, "continue", len(names[rules.LaterHere]),
			"elsewhere", len(names[rules.LaterElsewhere]), "unknown", len(names[rules.LaterUnknown]))
	}
	if err := r.told(ctx, me.Node, state.Recovered(r.DB.Cache), message); err != nil {
		return heartbeatError(err)
	}
	me.hasTold()
	return nil
}

// hasTold lets the session wait no longer for what its node has obeyed. Only listen calls it.
func (s *Session) hasTold() {
	s.answered = true
	close(s.obeyed)
}

// owes reports whether a node has not told yet what it has, since the last recovery. Without a recovery nobody does.
func owes(r state.Reader, node string) bool {
	id := state.Recovered(r)
	n, _ := state.Get[*carav1.Node](r, node)
	return id != "" && n.GetStatus().GetRecovery() != id
}

// told records that a node has told what it has.
func (r Recovery) told(ctx context.Context, node, id, message string) error {
	return r.DB.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, node)
		if !ok || n.GetStatus().GetRecovery() == id {
			return nil
		}
		if message != "" {
			rules.RecordEvent(t, rules.RefTo(n), api.EventWarning, api.ReasonRecovered, message)
		}
		n = proto.CloneOf(n)
		n.Status.Recovery = id
		t.Put(n)
		return nil
	})
}

// toldMessage says what a node has that the state does not know, or "".
func toldMessage(names map[rules.Later][]string) string {
	var parts []string
	for _, p := range []struct {
		later     rules.Later
		verb, why string
	}{
		{rules.LaterHere, "continues", ""},
		{rules.LaterElsewhere, "removes", ", which another node gets"},
		{rules.LaterUnknown, "removes", ", which the recovered state does not have"},
	} {
		list := names[p.later]
		if len(list) == 0 {
			continue
		}
		slices.Sort(list)
		more := ""
		if len(list) > maxTold {
			more = fmt.Sprintf(" and %d more", len(list)-maxTold)
		}
		parts = append(parts, fmt.Sprintf("%s %s%s%s", p.verb, strings.Join(list[:min(len(list), maxTold)], ", "), more, p.why))
	}
	if len(parts) == 0 {
		return ""
	}
	return "the cluster was recovered from an older state: this node " + strings.Join(parts, "; it ")
}
