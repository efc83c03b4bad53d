package dispatch

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// peerEntry is what agents accept from one node. It is immutable, and shared by all sessions.
type peerEntry struct {
	*carav1.Peer
	encoded []byte // the node in a message Routes
}

// maxPeerLog limits the changes of peers that the index remembers.
const maxPeerLog = 1000

// peerLog has the last changes of peers, the oldest first.
type peerLog []peerChange

// peerChange is a change of one node's entry. before is the digest of all peers before it.
type peerChange struct {
	before api.PeersDigest
	node   string
}

func (l *peerLog) record(before api.PeersDigest, node string) {
	if *l = append(*l, peerChange{before, node}); len(*l) > 2*maxPeerLog {
		*l = slices.Clone((*l)[maxPeerLog:])
	}
}

// peersSince returns the nodes whose entries have changed since an agent knew the peers of a digest. ok is false if the agent has
// to get all peers. x is locked.
func (x *RouteIndex) peersSince(digest []byte) (nodes map[string]struct{}, ok bool) {
	if len(digest) != len(x.digest) {
		return nil, false
	}
	known := api.PeersDigest(digest)
	if known == x.digest {
		return nil, true
	}
	nodes = map[string]struct{}{}
	for _, c := range slices.Backward(x.peerLog) {
		nodes[c.node] = struct{}{}
		if c.before == known {
			return nodes, true
		}
	}
	return nil, false
}

// setPeer replaces what agents accept from a node; nil is nothing. x is locked.
func (x *RouteIndex) setPeer(node string, p *carav1.Peer) {
	old := x.peers[node]
	if old == nil && p == nil || old != nil && p != nil && proto.Equal(p, old.Peer) {
		return
	}
	x.joined = nil
	x.peerLog.record(x.digest, node)
	if old != nil {
		x.digest.Toggle(old.Peer)
	}
	if p == nil {
		delete(x.peers, node)
	} else {
		x.digest.Toggle(p)
		x.peers[node] = &peerEntry{p, encodeRoutes(&carav1.Routes{Peers: []*carav1.Peer{p}})}
	}
	for f := range x.feeds {
		f.notePeer(node)
	}
}

// allPeers returns all nodes and their accepted certificates in messages Routes, encoded once for all sessions. x is locked.
func (x *RouteIndex) allPeers() routeParts {
	if x.joined == nil {
		for _, node := range slices.Sorted(maps.Keys(x.peers)) {
			x.joined.add(x.peers[node].encoded)
		}
	}
	return x.joined
}

// addPeers adds the removed nodes to a message, and returns the others with their accepted certificates. sending must be held.
func (f *routeFeed) addPeers(msg *carav1.Routes, changed *changes) (fields routeParts) {
	x := f.server.Routes
	x.mu.Lock()
	defer x.mu.Unlock()
	if changed.allNodes {
		known, ok := x.peersSince(f.me.peers)
		if !ok {
			return x.allPeers()
		}
		msg.KeepPeers = true
		maps.Copy(changed.nodes, known)
	}
	for _, node := range slices.Sorted(maps.Keys(changed.nodes)) {
		if p := x.peers[node]; p != nil {
			fields.add(p.encoded)
		} else {
			msg.RemovedPeers = append(msg.RemovedPeers, node)
		}
	}
	return fields
}

// AcceptedPeer returns what other agents accept from a node, or nil if no certificate of the node is accepted. A renewed
// certificate stays accepted until the next renewal, so the earliest certificate counts.
func AcceptedPeer(r state.Reader, node string) *carav1.Peer {
	var from time.Time
	for _, c := range state.List[*carav1.Token](r, identity.NodeTokenPrefix(node)) {
		if at := identity.NotBefore(c.GetExpireAt().AsTime()); from.IsZero() || at.Before(from) {
			from = at
		}
	}
	if from.IsZero() {
		return nil
	}
	return &carav1.Peer{Node: node, NotBefore: timestamppb.New(from)}
}
