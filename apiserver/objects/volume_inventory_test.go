package objects

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestFateOf(t *testing.T) {
	for _, test := range []struct {
		name    string
		state   string
		made    bool
		project string
		held    bool
		want    fate
	}{
		{"the node makes it", api.VolumeInUse, false, "uid", false, stays},
		{"the node has made it", api.VolumeInUse, false, "uid", true, made},
		{"in use", api.VolumeInUse, true, "uid", true, stays},
		{"removed by hand while in use", api.VolumeInUse, true, "uid", false, lost},
		{"retained", api.VolumeRetained, true, "", true, stays},
		{"removed by hand while retained", api.VolumeRetained, true, "", false, lost},
		{"retained, and made after all", api.VolumeRetained, false, "", true, made},
		{"retained, and never made", api.VolumeRetained, false, "", false, removed},
		{"lost", api.VolumeLost, true, "uid", false, stays},
		{"lost and found", api.VolumeLost, true, "uid", true, found},
		{"being deleted", api.VolumeDeleting, true, "", true, stays},
		{"deleted", api.VolumeDeleting, true, "", false, removed},
	} {
		v := &carav1.Volume{Status: &carav1.VolumeStatus{State: test.state, Made: test.made, ProjectUid: test.project}}
		if got := fateOf(v, test.held); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}
