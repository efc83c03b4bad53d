package step

import "testing"

func TestDoing(t *testing.T) {
	for _, c := range []struct {
		action Action
		want   string
	}{
		{Action{Kind: KindStartContainer, Service: "app", Name: "cara-p.app", Reason: reasonNext}, "starting app"},
		{Action{Kind: KindCreateContainer, Service: "app", Name: "cara-p.app", Reason: reasonNoContainer}, "creating the container of app"},
		{Action{Kind: KindCreateNetwork, Name: "cara-p", Reason: reasonNoNetwork}, "creating the network"},
		{Action{Kind: KindCreateVolume, Name: "cara-p.data", Reason: reasonDeclared}, "creating the volume cara-p.data"},
		{Action{Kind: KindDeleteContainer, Service: "app", Name: "cara-p.app", Reason: "its spec changed"}, "removing a container of app (its spec changed)"},
		{Action{Kind: KindWait, Service: "app", Reason: "service app waits for db to start"}, "service app waits for db to start"},
		{Action{Kind: KindPull, Name: "web:1"}, "pulling web:1"},
	} {
		if got := c.action.Doing(); got != c.want {
			t.Errorf("%v: %q, want %q", c.action, got, c.want)
		}
	}
	for _, kind := range []Kind{
		KindPull, KindFetchFiles, KindCreateNetwork, KindRemoveNetwork, KindCreateVolume, KindRemoveVolume, KindCreateContainer, KindStartContainer,
		KindRestartContainer, KindUnpauseContainer, KindConnectContainer, KindRenameContainer, KindUpdateContainer, KindStopContainer, KindDeleteContainer,
	} {
		if (Action{Kind: kind}).Doing() == "" {
			t.Errorf("there are no words for %s", kind)
		}
	}
}
