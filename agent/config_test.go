package agent

import "testing"

func TestConfigValidate(t *testing.T) {
	cfg := Config{}
	if err := cfg.Validate(); err == nil {
		t.Error("a config without an engine is accepted")
	}
	if cfg.Hardening.PIDsLimit != 4096 {
		t.Errorf("the pids limit is %d by default, want 4096", cfg.Hardening.PIDsLimit)
	}
}
