package dispatch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// holdTimeout is how long a new session may take to be recorded and to see the newest state.
	holdTimeout = 10 * time.Second
	// silenceCheck is how often a server looks for agents that are connected and send no heartbeats.
	silenceCheck = time.Second
	// pauseLimit is the time between two looks at the silence of agents after which this server itself may have been paused. What it
	// knows is then old: heartbeats wait to be read, and other servers may have its agents.
	pauseLimit = 3 * time.Second
)

// hold tells the other servers that this one has a node's session, and waits until the cache has all that was written before.
func (d *Dispatcher) hold(ctx context.Context, me *Session) error {
	if d.Directory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	revision, err := d.Directory.Hold(ctx, me.Node, me.Instance)
	if err == nil {
		err = d.DB.Cache.Wait(ctx, revision)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && api.Code(cause) != api.Code(ctx.Err()) {
			return cause // the session was taken over meanwhile
		}
		if ctx.Err() != nil {
			err = errSlow
		}
		return api.Unavailable("this server cannot take the agent of node %q now: %s (connect to another server)", me.Node, api.ProblemOf(err).GetDetail())
	}
	d.Sessions.mu.Lock()
	me.held = true
	d.Sessions.mu.Unlock()
	d.yield(me.Node) // another server may have been faster
	return nil
}

// errSlow means that a new session was not recorded, or the newest state not seen, within holdTimeout.
var errSlow = errors.New("it does not reach its store in time")

// leave ends a session.
func (d *Dispatcher) leave(me *Session) {
	if !d.Sessions.leave(me) || d.Directory == nil {
		return
	}
	d.releaseLeft(me.Node)
	d.Objects.Live.Leave(me.Node)
}

// releaseLeft removes the record that this server has a node's agent, if there is no session at all. Such a record stays when a write of
// it arrives after the session has ended, or when its removal fails: the node of an agent that has gone would be Ready for ever. A session
// begins before its record is written, and none begins meanwhile, so the record of a new one is not removed.
func (d *Dispatcher) releaseLeft(node string) {
	d.Sessions.mu.Lock()
	defer d.Sessions.mu.Unlock()
	if h, ok := d.Directory.Holder(node); ok && h.Server == d.Directory.Self() && d.Sessions.node[node] == nil {
		d.Directory.Release(node, h.Instance)
	}
}

// confirm records the challenges that an agent answers.
func (d *Dispatcher) confirm(me *Session, tokens []string) {
	d.Sessions.confirm(me, tokens)
	if d.Directory != nil {
		d.Objects.Live.Agents.Note(me.Node, live.Agent{PublicIngress: me.can(api.CapabilityPublicIngress), Answering: slices.Clone(tokens)})
	}
}

// yield ends the session of a node if another server has a newer one, or if the directory has lost it with this server's lease: then no
// other server would find the agent.
func (d *Dispatcher) yield(node string) {
	d.releaseLeft(node)
	h, ok := d.Directory.Holder(node)
	me := d.Sessions.recorded(node)
	switch {
	case me == nil || ok && h.Server == d.Directory.Self():
	case ok:
		me.End(takenOver(me, h.Instance))
	default:
		me.End(errNoPlace())
	}
}

func errNoPlace() error {
	return api.Unavailable("this server does not reach the store of the cluster: connect to another server")
}

// recorded returns a node's session if the directory has it, or nil.
func (s *Sessions) recorded(node string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.node[node]; n != nil && n.held {
		return n
	}
	return nil
}

// all returns all sessions.
func (s *Sessions) all() []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.node))
}

// FollowServers ends the sessions that another server has taken over, and all of them while this server's own lease is over. The
// nodes of a server that is lost get one more full time-out. It returns when ctx ends.
func (d *Dispatcher) FollowServers(ctx context.Context) error {
	if d.Directory == nil {
		return nil
	}
	seen := newSightings()
	return d.Directory.Follow(ctx, func(nodes []string) {
		servers := d.Directory.Servers()
		if nodes == nil {
			d.checkPlace(servers)
		}
		for _, node := range nodes {
			seen.note(node, d.Directory, d.DB.Now())
			d.yield(node)
		}
		for node, server := range seen.lost(servers, d.DB.Now()) {
			d.Objects.Live.Outlive(node, server, d.DB.Now())
		}
	})
}

// sightings are where the nodes are that some server has, and which have left their server a short time ago.
type sightings struct {
	at   map[string]string // the server, by node
	left map[string]departure
}

// departure is the server that had a node's agent, and since when no server has it.
type departure struct {
	server string
	at     time.Time
}

// apart is the longest time between the two signs that a server is lost: its sessions vanish, and the server does.
const apart = 15 * time.Second

func newSightings() sightings {
	return sightings{at: map[string]string{}, left: map[string]departure{}}
}

func (s sightings) note(node string, dir directory.Directory, now time.Time) {
	h, ok := dir.Holder(node)
	server, had := s.at[node]
	switch {
	case ok:
		s.at[node] = h.Server
		delete(s.left, node)
	case had:
		s.left[node] = departure{server, now}
		delete(s.at, node)
	}
}

// lost removes and returns the nodes whose server is lost, with that server. The signs of it come in any order. A node that has left
// long before its server is only removed.
func (s sightings) lost(servers map[string]*carav1.Server, now time.Time) map[string]string {
	out := map[string]string{}
	for node, left := range s.left {
		late, gone := now.Sub(left.at) > apart, servers[left.server] == nil
		if gone && !late {
			out[node] = left.server
		}
		if gone || late {
			delete(s.left, node)
		}
	}
	return out
}

// checkPlace ends all sessions if this server is not in the directory any more. It may not see what the other servers decide.
func (d *Dispatcher) checkPlace(servers map[string]*carav1.Server) {
	if servers[d.Directory.Self()] != nil {
		return
	}
	for _, me := range d.Sessions.all() {
		me.End(errNoPlace())
	}
}

// WatchSilence makes the nodes NotReady whose agents are connected to this server and send no heartbeats. It returns when ctx
// ends. A server alone leaves that to the scheduler, which does it for the nodes that no server has.
func (d *Dispatcher) WatchSilence(ctx context.Context) error {
	if d.Directory == nil {
		return nil
	}
	tick := time.NewTicker(silenceCheck)
	defer tick.Stop()
	awake := vigil{looked: time.Now(), since: d.DB.Now()}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for _, me := range d.Sessions.all() {
			awake.look(time.Now(), d.DB.Now())
			if err := d.markSilent(ctx, me, awake); err != nil && ctx.Err() == nil {
				d.DB.Logger.Warn("a node without heartbeats was not marked", "node", me.Node, "error", err)
			}
		}
		awake.look(time.Now(), d.DB.Now())
		d.DB.Cache.View().Ascend(api.KindNode, "", "", func(e *state.Entry) bool {
			d.releaseLeft(e.Name)
			return true
		})
	}
}

// vigil is how long this server has heard its agents without a pause. A process that was stopped, or a machine that was frozen, hears
// nothing meanwhile.
type vigil struct {
	looked time.Time // by the machine's clock
	since  time.Time // by the server's clock
}

// look records that the server runs. After a pause it counts the silence of all agents from now.
func (v *vigil) look(machine, server time.Time) {
	if v.paused(machine) {
		v.since = server
	}
	v.looked = machine
}

// paused reports whether the last look is so long ago that the server was paused. A frozen machine may show that only by the time of day.
func (v *vigil) paused(now time.Time) bool {
	return max(now.Sub(v.looked), now.Round(0).Sub(v.looked.Round(0))) > pauseLimit
}

// silent reports whether an agent was last heard of so long ago that its node is lost.
func (v *vigil) silent(last, now time.Time) bool {
	return !last.IsZero() && min(now.Sub(last), now.Sub(v.since)) >= NodeLease
}

// markSilent makes a node NotReady if its heartbeats stopped.
func (d *Dispatcher) markSilent(ctx context.Context, me *Session, awake vigil) error {
	node, last := me.Node, d.Objects.Live.Beats.Of(me.Node)
	if !awake.silent(last, d.DB.Now()) {
		return nil
	}
	if n, ok := state.Get[*carav1.Node](d.DB.Cache, node); !ok || n.GetStatus().GetState() == api.NodeNotReady {
		return nil
	}
	_, err := d.markNotReady(ctx, node, api.NodeSilence(node, timestamppb.New(last), NodeLease), func() error { return d.stillSilent(me, last, awake) })
	if api.IsConflict(err) || api.IsNotFound(err) {
		return nil
	}
	return err
}

// stillSilent returns an error if an agent is heard of, or this server is not the one to say that it is not.
func (d *Dispatcher) stillSilent(me *Session, last time.Time, awake vigil) error {
	h, ok := d.Directory.Holder(me.Node)
	has := ok && h.Server == d.Directory.Self() && d.Sessions.recorded(me.Node) == me
	if !has || !d.Objects.Live.Beats.Of(me.Node).Equal(last) || awake.paused(time.Now()) {
		return errHeard(me.Node)
	}
	return nil
}

// FollowRemovals forgets the nodes, sources and volumes that another server has deleted, and ends the sessions of such nodes. It returns when
// ctx ends.
func (d *Dispatcher) FollowRemovals(ctx context.Context) error {
	if d.Directory == nil || d.DB.Cache.Filled(ctx) != nil {
		return nil
	}
	for at := d.DB.Cache.Revision(); ; {
		txs, wake, ok := d.DB.Cache.After(at)
		if !ok { // too far behind: what is left is only memory
			at = d.DB.Cache.Revision()
			continue
		}
		for _, tx := range txs {
			at = tx.Rev
			for i := range tx.Changes {
				d.forget(&tx.Changes[i])
			}
		}
		if len(txs) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Dispatcher) forget(c *state.Change) {
	switch {
	case c.New != nil:
	case c.Kind == api.KindNode:
		d.Objects.Live.ForgetNode(c.Name)
		d.Sessions.end(c.Name, errDeleted(c.Name))
	case c.Kind == api.KindSource:
		d.Objects.Live.ForgetSource(c.Name)
	case c.Kind == api.KindVolume:
		d.Objects.Live.Sizes.Forget(api.Meta(c.Old).GetUid())
	}
}

func errDeleted(node string) error {
	return api.Forbidden("node %q was deleted: join again to come back", node)
}
