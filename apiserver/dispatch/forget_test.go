package dispatch

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestForgetVolume: a server forgets the size of a volume that was deleted, wherever the agent is connected.
func TestForgetVolume(t *testing.T) {
	d := &Dispatcher{Objects: &objects.Service{Live: live.New(time.Now())}}
	sizes := &d.Objects.Live.Sizes
	v := &carav1.Volume{Metadata: &carav1.ObjectMeta{Name: "shop.db", Uid: "u"}}
	sizes.Note("u", &carav1.HeldVolume{Uid: "u"})
	d.Holders().forget(&state.Change{Kind: api.KindVolume, Name: "shop.db", Old: v, New: v})
	if sizes.Of("u") == nil {
		t.Error("the size of a volume that has changed is forgotten")
	}
	d.Holders().forget(&state.Change{Kind: api.KindVolume, Name: "shop.db", Old: v})
	if sizes.Of("u") != nil {
		t.Error("the size of a deleted volume is kept")
	}
}
