package dispatch

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Challenges serves the part of the certificate service that needs the agents' connections.
type Challenges struct{ *Dispatcher }

const (
	// confirmWait is how long the agents may take to connect and to confirm a challenge.
	confirmWait = 20 * time.Second
	// elsewhereAgain is how often the agents of other servers are looked at meanwhile.
	elsewhereAgain = 200 * time.Millisecond
	// maxChallenges limits the challenges of all hosts, and so what each agent keeps and confirms.
	maxChallenges = 1000
)

// PresentChallenge stores a challenge, so that the agents get it, and waits until they have confirmed it.
func (c Challenges) PresentChallenge(ctx context.Context, req *carav1.PresentChallengeRequest) (*carav1.PresentChallengeResponse, error) {
	err := c.DB.Transact(ctx, func(t *state.Tx) error {
		n := 0
		t.Seen.Ascend(state.KindChallenge, "", "", func(e *state.Entry) bool {
			// A host has one order at a time. A killed server may have left an older challenge behind.
			if state.As[*carav1.Challenge](e.Message()).GetHost() == req.GetHost() {
				t.Remove(state.KindChallenge, e.Name)
			} else {
				n++
			}
			return true
		})
		if n >= maxChallenges {
			return api.Unavailable("%d hosts are being validated, which is the limit: try again later", n)
		}
		challenge := &carav1.Challenge{Host: req.GetHost(), Token: req.GetToken(), KeyAuthorization: req.GetKeyAuthorization()}
		if have, _ := state.Read[*carav1.Challenge](t, req.GetToken()); !proto.Equal(have, challenge) || have == nil {
			t.Write(state.Key(state.KindChallenge, req.GetToken()), challenge)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	for {
		out, changed := c.answering(req.GetToken())
		if c.hearsAll() && answered(out, req.GetNodes()) {
			return out, nil
		}
		select {
		case <-changed:
		case <-c.elsewhere():
		case <-ctx.Done():
			return out, nil
		}
	}
}

// answered reports whether no agent need be waited for any more.
func answered(out *carav1.PresentChallengeResponse, nodes []string) bool {
	absent := slices.ContainsFunc(nodes, func(node string) bool { return !slices.Contains(out.GetReady(), node) })
	return len(out.GetReady()) > 0 && len(out.GetMissing()) == 0 && !absent
}

// RemoveChallenge ends a challenge.
func (c Challenges) RemoveChallenge(ctx context.Context, req *carav1.RemoveChallengeRequest) (*emptypb.Empty, error) {
	err := c.DB.Transact(ctx, func(t *state.Tx) error {
		if _, ok := state.Read[*carav1.Challenge](t, req.GetToken()); ok {
			t.Remove(state.KindChallenge, req.GetToken())
		}
		return nil
	})
	return &emptypb.Empty{}, err
}

// confirm records the challenges that an agent answers.
func (s *Sessions) confirm(n *Session, tokens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.answers = slices.Clone(tokens)
	s.announce()
}

// answering returns which agents with public addresses answer a challenge, and a channel that is closed when that may have
// changed at this server.
func (d *Dispatcher) answering(token string) (*carav1.PresentChallengeResponse, <-chan struct{}) {
	all, changed := d.Sessions.public()
	if d.Directory != nil {
		for node, agent := range d.Objects.Live.Others() {
			if !agent.PublicIngress {
				continue
			}
			if h, ok := d.Directory.Holder(node); ok && h.Server != d.Directory.Self() {
				all[node] = agent.Answering
			}
		}
	}
	out := &carav1.PresentChallengeResponse{}
	for _, node := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(all[node], token) {
			out.Ready = append(out.Ready, node)
		} else {
			out.Missing = append(out.Missing, node)
		}
	}
	return out, changed
}

// elsewhere returns a channel that is ready when another server may have told something; nil for a server alone.
func (d *Dispatcher) elsewhere() <-chan time.Time {
	if d.Directory == nil {
		return nil
	}
	return time.After(elsewhereAgain)
}

// hearsAll reports whether this server hears of the agents of all servers.
func (d *Dispatcher) hearsAll() bool { return d.Directory == nil || d.HearsAll() }

// public returns the tokens that the connected agents with public addresses answer, and a channel that is closed when that may
// have changed.
func (s *Sessions) public() (map[string][]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]string{}
	for name, n := range s.node {
		if n.can(api.CapabilityPublicIngress) {
			out[name] = n.answers
		}
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return out, s.changed
}

// announce wakes those who wait for agents to confirm a challenge. s.mu is held.
func (s *Sessions) announce() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
