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
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
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

// Holders keeps the directory in step with the sessions of this server. The directory says which server has which agent.
type Holders struct {
	DB        *state.DB
	Live      *live.State
	Directory directory.Directory // nil for a server alone
	Sessions  *Sessions
}

// hold tells the other servers that this one has a node's session, and waits until the cache has all that was written before.
func (h Holders) hold(ctx context.Context, me *Session) error {
	if h.Directory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	revision, err := h.Directory.Hold(ctx, me.Node, me.Instance)
	if err == nil {
		err = h.DB.Cache.Wait(ctx, revision)
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
	h.Sessions.mu.Lock()
	me.held = true
	h.Sessions.mu.Unlock()
	h.endReplaced(me.Node) // another server may have been faster
	return nil
}

// errSlow means that a new session was not recorded, or the newest state not seen, within holdTimeout.
var errSlow = errors.New("it does not reach its store in time")

// leave ends a session.
func (h Holders) leave(me *Session) {
	if !h.Sessions.leave(me) || h.Directory == nil {
		return
	}
	h.releaseLeft(me.Node)
	h.Live.Leave(me.Node)
}

// releaseLeft removes the record that this server has a node's agent, if there is no session at all. Such a record stays when a write of
// it arrives after the session has ended, or when its removal fails: the node of an agent that has gone would be Ready for ever. A session
// begins before its record is written, and none begins meanwhile, so the record of a new one is not removed.
func (h Holders) releaseLeft(node string) {
	h.Sessions.mu.Lock()
	defer h.Sessions.mu.Unlock()
	if holder, ok := h.Directory.Holder(node); ok && holder.Server == h.Directory.Self() && h.Sessions.node[node] == nil {
		h.Directory.Release(node, holder.Instance)
	}
}

// confirm records the challenges that an agent answers.
func (h Holders) confirm(me *Session, tokens []string) {
	h.Sessions.confirm(me, tokens)
	if h.Directory != nil {
		h.Live.Agents.Note(me.Node, live.Agent{PublicIngress: me.can(api.CapabilityPublicIngress), Answering: slices.Clone(tokens)})
	}
}

// endReplaced ends the session of a node if another server has a newer one. It also ends one that the directory has lost with this
// server's lease: no other server would find the agent.
func (h Holders) endReplaced(node string) {
	h.releaseLeft(node)
	// In this order: the directory has the record of this session or a newer one. Read before, it could be older than a session that has
	// begun meanwhile, and would end that.
	me := h.Sessions.recorded(node)
	holder, ok := h.Directory.Holder(node)
	switch {
	case me == nil || ok && holder.Server == h.Directory.Self():
	case ok:
		me.End(takenOver(me, holder.Instance))
	default:
		me.End(errUnlisted())
	}
}

func errUnlisted() error {
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
func (h Holders) FollowServers(ctx context.Context) error {
	seen := newNodeServers()
	return h.Directory.Follow(ctx, func(nodes []string) {
		servers := h.Directory.Servers()
		if nodes == nil {
			h.endIfUnlisted(servers)
		}
		for _, node := range nodes {
			seen.note(node, h.Directory, h.DB.Now())
			h.endReplaced(node)
		}
		for node, server := range seen.lost(servers, h.DB.Now()) {
			h.Live.RestartTimeout(node, server, h.DB.Now())
		}
	})
}

// nodeServers has the server of each node that is connected, and the last server of those that were a short time ago.
type nodeServers struct {
	now  map[string]string // the server, by node
	last map[string]lastServer
}

// lastServer is the server that had a node's agent, and since when no server has it.
type lastServer struct {
	server string
	since  time.Time
}

// maxSignGap is the longest time between the two signs that a server is lost: its sessions leave the directory, and the server does.
const maxSignGap = 15 * time.Second

func newNodeServers() nodeServers {
	return nodeServers{now: map[string]string{}, last: map[string]lastServer{}}
}

func (s nodeServers) note(node string, dir directory.Directory, now time.Time) {
	h, ok := dir.Holder(node)
	server, had := s.now[node]
	switch {
	case ok:
		s.now[node] = h.Server
		delete(s.last, node)
	case had:
		s.last[node] = lastServer{server, now}
		delete(s.now, node)
	}
}

// lost removes and returns the nodes whose server is lost, with that server. The signs of it come in any order. A node that has left
// long before its server is only removed.
func (s nodeServers) lost(servers map[string]*carav1.Server, now time.Time) map[string]string {
	out := map[string]string{}
	for node, last := range s.last {
		late, gone := now.Sub(last.since) > maxSignGap, servers[last.server] == nil
		if gone && !late {
			out[node] = last.server
		}
		if gone || late {
			delete(s.last, node)
		}
	}
	return out
}

// endIfUnlisted ends all sessions if this server is not in the directory any more. It may not see what the other servers decide.
func (h Holders) endIfUnlisted(servers map[string]*carav1.Server) {
	if servers[h.Directory.Self()] != nil {
		return
	}
	for _, me := range h.Sessions.all() {
		me.End(errUnlisted())
	}
}

// WatchSilence makes the nodes NotReady whose agents are connected to this server and send no heartbeats. It returns when ctx
// ends. A server alone leaves that to the scheduler, which does it for the nodes that no server has.
func (h Holders) WatchSilence(ctx context.Context) error {
	run := uptime{looked: time.Now(), since: h.DB.Now()}
	guard.Every(ctx, silenceCheck, func() {
		for _, me := range h.Sessions.all() {
			run.look(time.Now(), h.DB.Now())
			if err := h.markSilent(ctx, me, run); err != nil && ctx.Err() == nil {
				h.DB.Logger.Warn("a node without heartbeats was not marked", "node", me.Node, "error", err)
			}
		}
		run.look(time.Now(), h.DB.Now())
		h.DB.Cache.View().Ascend(api.KindNode, "", "", func(e *state.Entry) bool {
			h.releaseLeft(e.Name)
			return true
		})
	})
	return nil
}

// uptime is how long this server has run without a pause. A process that was stopped, or a machine that was frozen, hears no agent
// meanwhile.
type uptime struct {
	looked time.Time // by the machine's clock
	since  time.Time // by the server's clock
}

// look records that the server runs. After a pause it counts the silence of all agents from now.
func (u *uptime) look(machine, server time.Time) {
	if u.paused(machine) {
		u.since = server
	}
	u.looked = machine
}

// paused reports whether the last look is so long ago that the server was paused. A frozen machine may show that only by the time of day.
func (u *uptime) paused(now time.Time) bool {
	return max(now.Sub(u.looked), now.Round(0).Sub(u.looked.Round(0))) > pauseLimit
}

// silent reports whether an agent was last heard of so long ago that its node is lost.
func (u *uptime) silent(last, now time.Time) bool {
	return !last.IsZero() && min(now.Sub(last), now.Sub(u.since)) >= NodeLease
}

// markSilent makes a node NotReady if its heartbeats stopped.
func (h Holders) markSilent(ctx context.Context, me *Session, run uptime) error {
	node, last := me.Node, h.Live.Beats.Of(me.Node)
	if !run.silent(last, h.DB.Now()) {
		return nil
	}
	if n, ok := state.Get[*carav1.Node](h.DB.Cache, node); !ok || n.GetStatus().GetState() == api.NodeNotReady {
		return nil
	}
	_, err := h.markNotReady(ctx, node, api.NodeSilence(node, timestamppb.New(last), NodeLease), func() error { return h.stillSilent(me, last, run) })
	if api.IsConflict(err) || api.IsNotFound(err) {
		return nil
	}
	return err
}

// stillSilent returns an error if an agent is heard of, or this server is not the one to say that it is not.
func (h Holders) stillSilent(me *Session, last time.Time, run uptime) error {
	holder, ok := h.Directory.Holder(me.Node)
	has := ok && holder.Server == h.Directory.Self() && h.Sessions.recorded(me.Node) == me
	if !has || !h.Live.Beats.Of(me.Node).Equal(last) || run.paused(time.Now()) {
		return errHeard(me.Node)
	}
	return nil
}

// FollowRemovals forgets the nodes, sources and volumes that another server has deleted. It ends the sessions of such nodes, and of nodes that
// have joined again at another server. It returns when ctx ends.
func (h Holders) FollowRemovals(ctx context.Context) error {
	if h.DB.Cache.Filled(ctx) != nil {
		return nil
	}
	// A removal that is missed leaves unused memory, and a session that ends with the agent's next message.
	h.DB.Cache.Track(ctx, nil, func() {}, func(txs []state.Transaction) {
		for _, tx := range txs {
			for i := range tx.Changes {
				h.forget(&tx.Changes[i])
			}
		}
	}, nil)
	return nil
}

func (h Holders) forget(c *state.Change) {
	switch {
	case c.New != nil:
	case c.Kind == api.KindNode:
		h.Live.ForgetNode(c.Name)
		h.Sessions.end(c.Name, errDeleted(c.Name))
	case c.Kind == api.KindToken:
		h.endFenced(c.Name)
	case c.Kind == api.KindSource:
		h.Live.ForgetSource(c.Name)
	case c.Kind == api.KindVolume:
		h.Live.Sizes.Forget(api.Meta(c.Old).GetUid())
	}
}

// endFenced ends the session that has a certificate, because its node has joined with another one.
func (h Holders) endFenced(certificate string) {
	node, ok := identity.NodeOfToken(certificate)
	if !ok {
		return
	}
	if me := h.Sessions.Of(node); me != nil && me.certificate == certificate && joinedAgain(h.DB, me) {
		me.End(errJoinedAgain(node))
	}
}

func errDeleted(node string) error {
	return api.Forbidden("node %q was deleted: join again to come back", node)
}
