package kept

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func message(key string) *carav1.Credentials {
	return &carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{{Id: "secret/web", Key: []byte(key)}}}
}

// TestStored: what changed before the end is on disk after it, and only the agent's user can read it.
func TestStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	f := New(path, "credentials", slog.New(slog.DiscardHandler))
	if f.Load(&carav1.Credentials{}) {
		t.Error("there is a message before the first run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Run(ctx, func() proto.Message { t.Error("stored without a change"); return message("") })
	f.Changed()
	f.Run(ctx, func() proto.Message { return message("private") })
	got := &carav1.Credentials{}
	if !New(path, "credentials", slog.New(slog.DiscardHandler)).Load(got) || !proto.Equal(got, message("private")) {
		t.Errorf("read %v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestStoredSoon: a change is on disk within seconds, also after a write that took a minute or failed.
func TestStoredSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "later")
		f := New(filepath.Join(dir, "credentials.json"), "credentials", slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		text, slow := "first", time.Duration(0)
		go func() {
			defer close(ended)
			f.Run(ctx, func() proto.Message {
				now := message(text)
				time.Sleep(slow) //nolint:forbidigo // the bubble's clock
				return now
			})
		}()
		stored := func(what, want string) {
			t.Helper()
			time.Sleep(maxDelay + time.Second) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			got := &carav1.Credentials{}
			if !f.Load(got) || !proto.Equal(got, message(want)) {
				t.Errorf("%s: read %v", what, got)
			}
		}
		f.Changed()
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock; the directory is not there, so all writes fail
		synctest.Wait()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		stored("after a write that failed", "first")
		text, slow = "second", time.Minute
		f.Changed()
		time.Sleep(slow + time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		text, slow = "third", 0
		f.Changed()
		stored("after a write that took a minute", "third")
		cancel()
		<-ended
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		f.Changed()
		f.Run(ctx, func() proto.Message { return message("fourth") }) // a write that fails at the end is not tried again
	})
}

// TestNothingIsStored: an agent without a file keeps nothing.
func TestNothingIsStored(t *testing.T) {
	f := New("", "routes", slog.New(slog.DiscardHandler))
	f.Changed()
	f.Run(t.Context(), func() proto.Message { t.Error("stored"); return message("") })
	if f.Load(&carav1.Credentials{}) {
		t.Error("read a message")
	}
}

// TestDamagedFile: the log says that a file is damaged, and nothing of its content.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, []byte(`{"certificates": [{"id": 1, "key": hunter2`), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if New(path, "credentials", slog.New(slog.NewTextHandler(&log, nil))).Load(&carav1.Credentials{}) {
		t.Error("a damaged file was read")
	}
	if text := log.String(); !strings.Contains(text, "damaged") || !strings.Contains(text, path) || strings.Contains(text, "hunter2") {
		t.Errorf("log: %s", text)
	}
}
