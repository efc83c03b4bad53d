package agent

import "testing"

func TestConfigValidate(t *testing.T) {
	cfg := Config{}
	if err := cfg.Validate(); err == nil {
		t.Error("a config without an engine is accepted")
	}
	if want := (Limits{DiskPressure: 90, MemoryPressure: 5, CollectAbove: 85, CollectTo: 80}); cfg.Limits != want {
		t.Errorf("the limits are %+v by default, want %+v", cfg.Limits, want)
	}
	if cfg.Hardening.PIDsLimit != 4096 {
		t.Errorf("the pids limit is %d by default, want 4096", cfg.Hardening.PIDsLimit)
	}
}
