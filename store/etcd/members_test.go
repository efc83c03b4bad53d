package etcd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// tellsSizes checks what a full etcd of one member says about itself, and what people read.
func tellsSizes(t *testing.T, s *Store, quota bool) {
	t.Helper()
	s.members.know(s.askMembers(), s.cfg.Logger)
	all := s.Members()
	if len(all) != 1 || !all[0].Up || !all[0].Leader || all[0].Size < 10<<20 || all[0].InUse == 0 || all[0].InUse > all[0].Size || all[0].Alarms == 0 {
		t.Errorf("the members are %+v", all)
	}
	if quota && all[0].Quota != 16777216 {
		t.Errorf("the quota is %d", all[0].Quota)
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "has a database of ") || !strings.Contains(err.Error(), "etcdctl alarm disarm") {
		t.Errorf("the state is %v", err)
	}
}

// A warning is logged when a database begins to near its quota, once.
func TestNearQuota(t *testing.T) {
	var log bytes.Buffer
	var m members
	for _, step := range []struct {
		name  string
		m     Member
		warns int
	}{
		{"small", Member{Up: true, Size: 79 << 20, Quota: 100 << 20}, 0},
		{"no quota known", Member{Up: true, Size: 1 << 40}, 0},
		{"near", Member{Up: true, Size: 81 << 20, InUse: 1 << 20, Quota: 100 << 20}, 1},
		{"still near", Member{Up: true, Size: 90 << 20, Quota: 100 << 20}, 1},
		{"defragmented", Member{Up: true, Size: 1 << 20, Quota: 100 << 20}, 1},
		{"near again", Member{Up: true, Size: 90 << 20, Quota: 100 << 20}, 2},
	} {
		m.know([]Member{{Endpoint: "down"}, step.m}, slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Count(log.String(), "nears its quota"); got != step.warns {
			t.Errorf("%s: %d warnings, want %d:\n%s", step.name, got, step.warns, log.String())
		}
	}
}
