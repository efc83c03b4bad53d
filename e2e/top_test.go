package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

func TestTop(t *testing.T) {
	w := oneNode(t)
	testdocker.Images(t, w.engines[0], testimage.Busybox)
	name := w.name("busy")
	w.apply(project(name, `
services:
- name: idle
  image: `+testimage.Busybox+`
  command: [sleep, 1h]
  stopGracePeriod: 1s
  resources: {limits: {memory: 64Mi}}
- name: busy
  image: `+testimage.Busybox+`
  command: [sh, -c, "while :; do :; done"]
  stopGracePeriod: 1s
  resources: {limits: {cpu: 200m}}`))
	w.running(name)
	r := w.ctl("", "top", "project/"+name)
	if r.Code != 0 || !regexp.MustCompile(`^SERVICE +CPU +MEMORY +MEM% +NET RX/TX +PIDS\n`+
		`idle +\dm +[0-9.]+\w* +[0-9.]+ +[0-9.]+\w*/[0-9.]+\w* +1\n`+
		`busy +\d+m +[0-9.]+\w* +[0-9.]+ +[0-9.]+\w*/[0-9.]+\w* +1\n$`).MatchString(r.Stdout) {
		t.Errorf("top: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	var sample struct {
		Services []struct{ Service, CPUMillis, MemoryLimitBytes string }
	}
	w.must(json.Unmarshal([]byte(w.ctl("", "top", name+"/idle", "-o", "json").Stdout), &sample))
	if len(sample.Services) != 1 || sample.Services[0].MemoryLimitBytes != "67108864" {
		t.Errorf("one service as JSON: %+v", sample)
	}
	w.says("as YAML", w.ctl("", "top", name, "-o", "yaml").Stdout, "services:\n  - service: idle\n", "  - service: busy\n    cpuMillis: ")
	w.call("GET", "/api/v1/projects/"+name+"/top", "", 200, &sample)
	if len(sample.Services) != 2 || sample.Services[1].CPUMillis == "" {
		t.Errorf("over REST: %+v", sample)
	}
	var usage struct {
		Services []struct {
			Service                string
			CPUMillis, MemoryBytes []float32
		}
	}
	w.eventually("the usage history has idle and busy", func() error { // the agent measures every 15 seconds
		w.call("GET", "/api/v1/projects/"+name+"/usage", "", 200, &usage)
		if len(usage.Services) == 2 && slices.Max(usage.Services[1].CPUMillis) > 50 && slices.Max(usage.Services[0].MemoryBytes) > 0 {
			return nil
		}
		return fmt.Errorf("it is %+v", usage)
	})
	w.says("the last hour", w.ctl("", "top", name, "--history").Stdout, "LAST HOUR", "idle      Memory", "busy      CPU", "█")
	w.says("the last hour of a service", w.ctl("", "top", name+"/idle", "--history", "-o", "yaml").Stdout, "service: idle", "memoryBytes:")
	watch := w.begin("top", "-w", "-o", "json", name)
	w.prints(watch, `"service":"busy"`)
	w.must(watch.Stop(t.Context()))

	for args, want := range map[string]string{
		"nothing":       `project "nothing" not found`,
		name + "/nope":  `is "nope"; project "` + name + `" has idle, busy`,
		name + " -oxml": "want json or yaml",
	} {
		if r := w.ctl("", append([]string{"top"}, strings.Fields(args)...)...); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("top %s: %+v\nwant %q", args, r, want)
		}
	}
}
