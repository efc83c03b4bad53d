package peers

import (
	"context"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// newsDelay collects news: the heartbeats of many agents make one message.
	newsDelay = 100 * time.Millisecond
	// revisionEvery is how often the revision of the cache is told while it changes.
	revisionEvery = time.Second
)

// Service is what a server offers to the others.
type Service struct {
	*Peers
	carav1.UnsafePeerServiceServer
}

// FollowPeer streams what this server knows. It sends the newest state of each object: a server that reads slowly gets fewer messages.
func (s Service) FollowPeer(_ *carav1.FollowPeerRequest, stream carav1.PeerService_FollowPeerServer) error {
	if s.Peers == nil {
		return api.BadState("this server is alone: it keeps its state in Pebble and has no peers")
	}
	if s.followers.Add(1) > maxFollowers {
		s.followers.Add(-1)
		return api.TooMany("%d servers follow this one, which is the most: try again later", maxFollowers)
	}
	defer s.followers.Add(-1)
	out := s.Live.Follow()
	defer s.Live.Unfollow(out)
	tick := time.NewTicker(revisionEvery)
	defer tick.Stop()
	told := int64(-1)
	for first := true; ; first = false {
		var err error
		if told, err = s.send(out, stream, first, told); err != nil {
			return err
		}
		if err := s.await(stream.Context(), out, tick.C); err != nil {
			return err
		}
	}
}

// send sends all that is in an outbox, and the revision of the cache if the other server was told an older one. It returns the
// revision that the other server knows then.
func (s Service) send(out *live.Outbox, stream carav1.PeerService_FollowPeerServer, first bool, told int64) (int64, error) {
	for more := true; more; first = false {
		var news *carav1.PeerNews
		news, more = out.Take(s.DB.Now())
		if first {
			news.Server = s.Directory.Self()
		}
		news.Revision = s.DB.Cache.Revision()
		if !first && !news.GetSynced() && news.GetRevision() == told && len(news.GetNodes())+len(news.GetSources())+len(news.GetVolumes()) == 0 {
			continue
		}
		if err := stream.Send(news); err != nil {
			return told, err
		}
		told = news.GetRevision()
	}
	return told, nil
}

// await returns when there are news, and a moment has passed in which there may be more, or when it is time to tell the revision.
func (s Service) await(ctx context.Context, out *live.Outbox, revision <-chan time.Time) error {
	select {
	case <-out.Wake:
	case <-revision:
		return nil
	case <-s.DB.Draining:
		return state.ErrDraining()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-time.After(newsDelay):
		return nil
	case <-s.DB.Draining:
		return state.ErrDraining()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
