package peers

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// self is the directory of a server.
type self struct{ directory.Directory }

func (self) Self() string { return "a" }

// sent is a stream that keeps what was sent.
type sent struct {
	grpc.ServerStream
	all []*carav1.PeerNews
}

func (s *sent) Send(news *carav1.PeerNews) error {
	s.all = append(s.all, news)
	return nil
}

// TestSyncedIsSent: the message that ends the first state is sent also if it has nothing else.
func TestSyncedIsSent(t *testing.T) {
	s := Service{Peers: &Peers{Live: live.New(time.Now()), Directory: self{}, DB: &state.DB{Now: time.Now, Cache: state.NewCache(1)}}}
	for i := range 501 { // more than one message has, and all from another server
		s.Live.RestartTimeout(fmt.Sprintf("n%d", i), "b", time.Now())
	}
	out, stream := s.Live.Follow(), &sent{}
	if _, err := s.send(out, stream, true, -1); err != nil {
		t.Fatal(err)
	}
	if n := len(stream.all); n != 2 || !stream.all[n-1].GetSynced() {
		t.Errorf("sent %v", stream.all)
	}
}
