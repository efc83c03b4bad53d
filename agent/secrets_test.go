package agent_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// logBook keeps what was logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestEngineNeverTellsASecret uses an engine that quotes a value in every error.
func TestEngineNeverTellsASecret(t *testing.T) {
	const value = "hunter2-hunter2"
	for _, call := range []string{
		"CreateContainer", "StartContainer", "CreateNetwork", "CreateVolume", "CopyFiles", "ListContainers", "InspectContainer",
		"ListNetworks", "ListVolumes", "InspectImage", "PullImage", "Logs",
	} {
		t.Run(call, func(t *testing.T) {
			f, book := newFaked(t), &logBook{}
			f.cfg.Logger = slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug}))
			f.secrets["p"] = map[string][]byte{"db/p": []byte(value)}
			f.engine.Fault(func(c string) error {
				if c == call {
					return errors.New("refused PASSWORD=" + value + "\x00 at " + call)
				}
				return nil
			})
			spec := services("web")
			spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
			spec.Services[0].Files = []*carav1.File{{Path: "/p", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}
			spec.Volumes = []*carav1.ProjectVolume{{Name: "v", Type: api.VolumeEphemeral}}
			f.run(t)
			f.put("p", spec)
			waitUntil(t, func() bool { return f.engine.Calls(call) > 2 || f.engine.Calls("StartContainer") > 0 })
			f.stop()
			f.mu.Lock()
			said, err := protojson.Marshal(f.projects["p"])
			for _, e := range f.events {
				said = append(said, e.String()...)
			}
			f.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(said), value) {
				t.Errorf("reported: %s", said)
			}
			if strings.Contains(book.String(), value) {
				t.Errorf("logged: %s", book)
			}
		})
	}
}

// TestStreamErrorsNeverTellASecret uses an engine that quotes a value in every error of a stream.
func TestStreamErrorsNeverTellASecret(t *testing.T) {
	const value = "hunter2-hunter2"
	f, book := newFaked(t), &logBook{}
	f.cfg.Logger = slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.secrets["p"] = map[string][]byte{"db/p": []byte(value)}
	spec := services("web")
	spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	for name, open := range map[string]func() *carav1.OpenStream{
		"logs":           func() *carav1.OpenStream { return logsOf(&carav1.LogsRequest{Name: "p"}) },
		"followed logs":  func() *carav1.OpenStream { return logsOf(&carav1.LogsRequest{Name: "p", Follow: true}) },
		"logs of before": func() *carav1.OpenStream { return logsOf(&carav1.LogsRequest{Name: "p", Previous: true}) },
		"exec":           func() *carav1.OpenStream { return execOf("a", false, "true") },
		"port-forward": func() *carav1.OpenStream {
			return &carav1.OpenStream{Kind: &carav1.OpenStream_PortForward{PortForward: &carav1.PortForwardStart{Name: "p", Service: "a", Port: 80}}}
		},
		"top": func() *carav1.OpenStream {
			return &carav1.OpenStream{Kind: &carav1.OpenStream_Top{Top: &carav1.TopRequest{Name: "p"}}}
		},
	} {
		for _, failing := range []string{"ListContainers", "InspectContainer", "Start", "Logs", "Stats"} {
			f.engine.Fault(func(call string) error {
				if call == failing {
					return errors.New("refused PASSWORD=" + value + " at " + call)
				}
				return nil
			})
			id := name + "/" + failing
			f.open(id, open())
			if failing != "ListContainers" {
				continue // not every kind of stream makes every call
			}
			said := f.heard(t, id, func(all []*carav1.AttachRequest) bool {
				return slices.ContainsFunc(all, func(m *carav1.AttachRequest) bool { return m.GetError() != "" })
			})
			if last := said[len(said)-1].GetError(); !strings.Contains(last, "PASSWORD=<redacted>") {
				t.Errorf("%s: the error is %q, want the engine's without the value", id, last)
			}
		}
	}
	f.engine.Fault(nil)
	f.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, messages := range f.lines {
		for _, m := range messages {
			if strings.Contains(m.String(), value) {
				t.Errorf("%s said %s", id, m)
			}
		}
	}
	if strings.Contains(book.String(), value) {
		t.Errorf("logged: %s", book)
	}
}

// TestSecretsStayOffTheDisk: an agent that starts while the server is unreachable keeps containers running without the
// values.
func TestSecretsStayOffTheDisk(t *testing.T) {
	const value = "hunter2-hunter2"
	f := newFaked(t)
	f.secrets["p"] = map[string][]byte{"db/p": []byte(value)}
	f.auth = map[string]*carav1.RegistryAuth{"docker.io": {Username: "hubuser-hubuser", Password: "hubpass-hubpass"}}
	spec := services("web")
	spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	before := f.containers(t)["cara-p.a"]
	f.stop()
	err := filepath.WalkDir(f.cfg.DataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range []string{value, "hubuser", "hubpass", "aHVudGVyMi1odW50ZXIy"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s has a value: %s", path, data)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.away(true)
	f.run(t)
	f.engine.Kill(before.ID)
	waitUntil(t, func() bool {
		c := f.containers(t)["cara-p.a"]
		return c.ID == before.ID && c.State == "running" && c.StartedAt.After(before.StartedAt)
	})
	f.stop()
}
