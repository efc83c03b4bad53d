package docker

import (
	"errors"
	"testing"
)

func TestStuck(t *testing.T) {
	for text, want := range map[string]bool{
		"task c1: already exists":                                      true,
		"Error response from daemon: task c1: already exists: unknown": true,
		"failed to start shim: mkdir /run/daemon/io.containerd.runtime.v2.task/moby/c1: file exists: unknown": true,
		"failed to start shim: mkdir /run/daemon/io.containerd.runtime.v2.task/moby/c2: file exists: unknown": false,
		"Error response from daemon: id already in use":                                                       true,
		"task c2: already exists":                           false,
		"endpoint with name c1 already exists in network n": false,
		"driver failed programming external connectivity":   false,
	} {
		if got := stuck(errors.New(text), "c1"); got != want {
			t.Errorf("stuck(%q) = %t, want %t", text, got, want)
		}
	}
}
