package live

import (
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// deliver takes all from an outbox and lets another state hear it. It returns how many messages there were.
func deliver(from string, o *Outbox, to *State, now time.Time) (messages int, synced bool) {
	for more := true; more; messages++ {
		var news *carav1.PeerNews
		news, more = o.Take(now)
		to.Hear(from, news, now)
		synced = synced || news.GetSynced()
	}
	return messages, synced
}

func TestNews(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b, c := New(now), New(now), New(now)
	a.Beats.Note("n1", now.Add(-5*time.Second))
	a.Infos.Note("n1", &carav1.NodeInfo{Platform: "x"})
	a.Inventories.Note("n1", true)
	toB, toC := a.Follow(), b.Follow()
	defer a.Unfollow(toB)
	if _, synced := deliver("a", toB, b, now); !synced {
		t.Error("the first state was not completed")
	}
	if got := b.Beats.Of("n1"); !got.Equal(now.Add(-5*time.Second)) || b.Infos.Of("n1").GetPlatform() != "x" || !b.Inventories.Of("n1") {
		t.Errorf("b knows %v, %v, %v", got, b.Infos.Of("n1"), b.Inventories.Of("n1"))
	}
	if deliver("b", toC, c, now); !c.Beats.Of("n1").IsZero() {
		t.Error("b passes on what it was told")
	}

	sub := b.Hints.Subscribe()
	d := &carav1.Delivery{Id: "1", Time: timestamppb.New(now)}
	a.Hints.Tell("src", d)
	a.Hints.Note("src", &carav1.Delivery{Id: "2", Time: timestamppb.New(now.Add(time.Second))})
	deliver("a", toB, b, now)
	if got := sub.Take()["src"]; got.GetId() != "1" || b.Hints.Of("src").GetId() != "2" || !b.Hints.Seen("src", "1") {
		t.Errorf("b was told %v and has %v", got, b.Hints.Of("src"))
	}

	// The newer heartbeat counts, and what one server says comes in order.
	b.Beats.Note("n1", now)
	a.Agents.Note("n1", Agent{Answering: []string{"t"}})
	if deliver("a", toB, b, now); len(b.Agents.Of("n1").Answering) != 0 {
		t.Error("an older session has changed a newer one")
	}
	a.Beats.Note("n1", now.Add(time.Second))
	if deliver("a", toB, b, now.Add(time.Second)); len(b.Agents.Of("n1").Answering) != 1 {
		t.Error("a newer session was not heard")
	}
	a.Leave("n1")
	if deliver("a", toB, b, now.Add(time.Second)); len(b.Others()["n1"].Answering) != 0 {
		t.Error("an agent that has left still answers")
	}

	later := now.Add(time.Minute)
	if b.RestartTimeout("n1", "a", later); !b.Beats.Of("n1").Equal(later) {
		t.Errorf("the node of a lost server was last heard of at %v", b.Beats.Of("n1"))
	}
}

func TestNewsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := New(now), New(now)
	for i := range 3 * maxNews {
		a.Beats.Note(strconv.Itoa(i), now)
		a.Sizes.Note(strconv.Itoa(i), &carav1.HeldVolume{Uid: strconv.Itoa(i)})
		a.Polls.Note(strconv.Itoa(i), &carav1.PollStatus{LastTime: timestamppb.New(now)})
	}
	o := a.Follow()
	messages, synced := deliver("a", o, b, now)
	if messages != 9 || !synced || b.Beats.Of("1").IsZero() || b.Sizes.Of("1") == nil || b.Polls.Of("1") == nil {
		t.Errorf("%d messages, synced %v", messages, synced)
	}
	for range 1000 {
		a.Beats.Note("1", now)
	}
	if messages, synced := deliver("a", o, b, now); messages != 1 || synced {
		t.Errorf("%d messages for one node, synced %v", messages, synced)
	}
	a.Unfollow(o)
	a.Beats.Note("2", now)
	if news, _ := o.Take(now); len(news.GetNodes()) != 0 {
		t.Error("an outbox that was removed still collects")
	}
}
