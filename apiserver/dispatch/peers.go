package dispatch

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// peerEntry is what agents accept from one node. It is immutable, and shared by all sessions.
type peerEntry struct {
	*carav1.Peer
	encoded []byte // the node in a message Routes
}

// setPeer replaces what agents accept from a node; nil is nothing. x is locked.
func (x *RouteIndex) setPeer(node string, p *carav1.Peer) {
	old := x.peers[node]
	if old == nil && p == nil || old != nil && p != nil && proto.Equal(p, old.Peer) {
		return
	}
	x.joined = nil
	if p == nil {
		delete(x.peers, node)
	} else {
		x.peers[node] = &peerEntry{p, encodeRoutes(&carav1.Routes{Peers: []*carav1.Peer{p}})}
	}
	for f := range x.feeds {
		f.notePeer(node)
	}
}

// encodedPeers returns all nodes and their accepted certificates in a message Routes, encoded once for all sessions. x is locked.
func (x *RouteIndex) encodedPeers() []byte {
	if x.joined == nil {
		for _, node := range slices.Sorted(maps.Keys(x.peers)) {
			x.joined = append(x.joined, x.peers[node].encoded...)
		}
	}
	return x.joined
}

// addPeers adds nodes and their accepted certificates. sending must be held.
func (f *routeFeed) addPeers(msg *carav1.Routes, changed *changes) {
	x := f.server.Routes
	x.mu.Lock()
	defer x.mu.Unlock()
	if changed.allNodes {
		appendEncoded(msg, x.encodedPeers())
		return
	}
	var encoded []byte
	for _, node := range slices.Sorted(maps.Keys(changed.nodes)) {
		if p := x.peers[node]; p != nil {
			encoded = append(encoded, p.encoded...)
		} else {
			msg.RemovedPeers = append(msg.RemovedPeers, node)
		}
	}
	appendEncoded(msg, encoded)
}

// AcceptedPeer returns what other agents accept from a node, or nil if no certificate of the node is accepted. A renewed
// certificate stays accepted until the next renewal, so the earliest certificate counts.
func AcceptedPeer(r state.Reader, node string) *carav1.Peer {
	certificates, _ := state.List[*carav1.Token](r, identity.NodeTokenPrefix(node), "")
	var from time.Time
	for _, c := range certificates {
		if at := identity.NotBefore(c.GetExpireAt().AsTime()); from.IsZero() || at.Before(from) {
			from = at
		}
	}
	if from.IsZero() {
		return nil
	}
	return &carav1.Peer{Node: node, NotBefore: timestamppb.New(from)}
}
