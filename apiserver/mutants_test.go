package apiserver

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// Each test here checks one line of code that is essential for a property, and fails without it.

// A watch that is several chunks behind gets every transaction once, in order.
func TestFollowHearsAllChunks(t *testing.T) {
	db := &state.DB{Bookmarks: time.Hour, Cache: state.NewCache(1 << 20), Draining: make(chan struct{})}
	const last = 3*state.ReadChunk + 1
	for rev := int64(1); rev <= last; rev++ {
		db.Cache.Apply(state.Transaction{Rev: rev, Changes: []state.Change{{Kind: api.KindProject, Name: "p", New: web("p")}}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	next := int64(1)
	err := db.Follow(ctx, state.Follower{
		From:   "0",
		Synced: func(int64) error { return nil },
		Commit: func(tx state.Transaction) error {
			if tx.Rev != next {
				return errors.New("revision " + strconv.FormatInt(tx.Rev, 10) + " comes instead of " + strconv.FormatInt(next, 10))
			}
			if next++; next > last {
				cancel()
			}
			return nil
		},
		Bookmark: func(int64) error { return nil },
	})
	if !errors.Is(err, context.Canceled) || next != last+1 {
		t.Errorf("the watch ended before revision %d of %d: %v", next, last, err)
	}
}

// The store never contains a Secret's value in clear.
func TestSecretsAreSealed(t *testing.T) {
	c := openCluster(t, t.TempDir(), nil)
	secrets := carav1.NewSecretServiceClient(c.admin(t))
	values := []string{"first-plain-value", "second-plain-value", "changed-plain-value"}
	for _, in := range []*carav1.Secret{
		{Data: map[string][]byte{"a": []byte(values[0])}, StringData: map[string]string{"b": values[1]}},
		{StringData: map[string]string{"a": values[0], "b": values[2]}},
	} {
		in.ApiVersion, in.Kind, in.Type, in.Metadata = api.APIVersion, api.KindSecret, "Opaque", &carav1.ObjectMeta{Name: "s"}
		if _, err := secrets.PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: in}); err != nil {
			t.Fatal(err)
		}
	}
	found := false
	for ch, err := range c.db.Store.Watch(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ch.Events {
			found = found || e.KV.Key == "secrets/s"
			for _, value := range values {
				if bytes.Contains(e.KV.Value, []byte(value)) {
					t.Errorf("%s at revision %d has %q", e.KV.Key, ch.Revision, value)
				}
			}
		}
		if ch.Revision >= c.db.Cache.Revision() {
			break
		}
	}
	if !found {
		t.Error("the secret is not in the store")
	}
}

// pointStore is a store whose copy is one file that its live directory does not have.
type pointStore struct{ store.Store }

func (pointStore) Checkpoint(_ context.Context, dir string) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "CHECKPOINT"), []byte("one moment"), 0o600))
}

// A backup has the store's snapshot, and no file that the store writes during the backup.
func TestBackupTakesTheCheckpoint(t *testing.T) {
	c := openCluster(t, t.TempDir(), func(cfg *Config) { cfg.Store = pointStore{cfg.Store} })
	archive, err := backupOf(t, carav1.NewInfoServiceClient(c.admin(t)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(header.Name, "store") {
			got = append(got, header.Name)
		}
	}
	if !slices.Equal(got, []string{"store/CHECKPOINT"}) {
		t.Errorf("of the store the archive has %q, want the checkpoint alone", got)
	}
}

// illStore is a store that cannot write.
type illStore struct{ store.Store }

func (illStore) Err() error { return errors.New("no space left on the disk") }

// An error of the store shows in /readyz immediately, with the reason, while the process keeps running.
func TestReadyTellsOfTheStore(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Store = illStore{c.Store} })
	for path, want := range map[string]int{"/readyz": 503, "/healthz": 200} {
		status, answer, err := h.request(t, "GET", path, "")
		if err != nil || status != want || status == 503 && !strings.Contains(answer, "no space left on the disk") {
			t.Errorf("%s: %d %s, %v; want %d", path, status, answer, err, want)
		}
	}
}
