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

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// The tests here each hold one line on which a whole property hangs, and fail at once without it.

// A watch that is several chunks of the ring behind hears every transaction, once, in order.
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

// A report counts only for the assignment that it is about, also from the node that has the project.
func TestReportOfAnotherEpochIsRefused(t *testing.T) {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "p", Uid: "u", Generation: 3},
		Status:   &carav1.ProjectStatus{NodeRef: "n1", Epoch: 5},
	}
	for epoch, refused := range map[int32]bool{4: true, 5: false, 6: true} {
		req := &carav1.UpdateProjectStatusRequest{Name: "p", Uid: "u", ObservedGeneration: 3}
		req.Epoch = epoch
		err := mayReport(identity.Actor{Name: "node/n1", Role: api.RoleNode}, p, req)
		if refused {
			wantCode(t, err, codes.Aborted, api.TitleStaleEpoch)
		} else if err != nil {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

// Apply holds a token's name prefix against every kind that the token may write.
func TestApplyHoldsTheNamePrefix(t *testing.T) {
	h := newHouse(t, nil)
	ctx := identity.WithActor(t.Context(), callers["Bearer ci"])
	secret := func(name string) *carav1.Secret {
		return &carav1.Secret{
			ApiVersion: api.APIVersion, Kind: api.KindSecret, Type: "opaque", Metadata: &carav1.ObjectMeta{Name: name},
			StringData: map[string]string{"k": "v"},
		}
	}
	wantCode(t, h.mayApply(ctx, secret("prod-db"), applyTerms{}), codes.PermissionDenied, api.TitleForbidden)
	wantCode(t, h.mayApply(ctx, web("prod"), applyTerms{}), codes.PermissionDenied, api.TitleForbidden)
	if err := h.mayApply(ctx, secret("pr-db"), applyTerms{}); api.Code(err) == codes.PermissionDenied {
		t.Errorf("within the prefix: %v", err)
	}
}

// A source takes a project only from the owners that the call names.
func TestHandOverNamesItsOwners(t *testing.T) {
	p := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p", Owner: "source/a"}}
	for _, tt := range []struct {
		name     string
		owner    string
		handOver []string
		refused  bool
	}{
		{"its own", "source/a", nil, false},
		{"nobody lets go", "source/b", nil, true},
		{"another lets go", "source/b", []string{"source/c"}, true},
		{"the owner lets go", "source/b", []string{"source/c", "source/a"}, false},
	} {
		if err := mayTake(p, tt.owner, api.AdoptAlways, tt.handOver); (err != nil) != tt.refused {
			t.Errorf("%s: %v, refused should be %v", tt.name, err, tt.refused)
		}
	}
}

// A new override lasts as long as it was asked for.
func TestOverrideTerm(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	change := &state.Tx{Now: now}
	end, _, err := overrideEnd(change, "p", "s", &carav1.OverrideTerms{Reason: "why", For: durationpb.New(time.Hour)})
	if err != nil || !end.AsTime().Equal(now.Add(time.Hour)) {
		t.Errorf("for an hour ends at %v (%v), want in an hour", end.AsTime(), err)
	}
	for name, terms := range map[string]*carav1.OverrideTerms{
		"negative": {Reason: "why", For: durationpb.New(-time.Hour)},
		"past":     {Reason: "why", Until: timestamppb.New(now.Add(-time.Hour))},
	} {
		if _, _, err := overrideEnd(change, "p", "s", terms); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Nothing of the store's bytes has a Secret's value, whichever key and way it came by.
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

func (pointStore) Checkpoint(dir string) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "CHECKPOINT"), []byte("one moment"), 0o600))
}

// A backup has the store's copy of one moment, and no file that the store writes meanwhile.
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

// A store that is not well shows in /readyz at once, with the reason; the process still lives.
func TestReadyTellsOfTheStore(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Store = illStore{c.Store} })
	for path, want := range map[string]int{"/readyz": 503, "/healthz": 200} {
		status, answer, err := h.request(t, "GET", path, "")
		if err != nil || status != want || status == 503 && !strings.Contains(answer, "no space left on the disk") {
			t.Errorf("%s: %d %s, %v; want %d", path, status, answer, err, want)
		}
	}
}
