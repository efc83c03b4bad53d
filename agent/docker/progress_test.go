package docker

import (
	"testing"

	"github.com/docker/docker/pkg/jsonmessage"
	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
)

func TestLayersThatAreQueuedOrLoading(t *testing.T) {
	tests := map[string]struct {
		statuses []string
		want     engine.Progress
	}{
		"begun":              {[]string{"Pulling fs layer"}, engine.Progress{Layers: 1, Loading: 1}},
		"queued":             {[]string{"Pulling fs layer", "Waiting"}, engine.Progress{Layers: 1, Queued: 1}},
		"loading":            {[]string{"Pulling fs layer", "Waiting", "Downloading"}, engine.Progress{Layers: 1, Loading: 1}},
		"extracting":         {[]string{"Pulling fs layer", "Downloading", "Extracting"}, engine.Progress{Layers: 1}},
		"ready":              {[]string{"Pulling fs layer", "Waiting", "Pull complete"}, engine.Progress{Layers: 1, Ready: 1}},
		"not about a layer":  {[]string{"Pulling from team/app"}, engine.Progress{}},
		"after a broken try": {[]string{"Pulling fs layer", "Downloading", "Retrying in 5 seconds"}, engine.Progress{Layers: 1, Loading: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var l layer
			for _, status := range tt.statuses {
				l = l.with(jsonmessage.JSONMessage{ID: "1", Status: status})
			}
			if diff := cmp.Diff(tt.want, sum(map[string]layer{"1": l})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
