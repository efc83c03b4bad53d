package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// The contents of `files[].from` are stored once for each digest. Who declares a project stores them first. The garbage
// collector marks what nothing uses, and deletes it if that is still so a while later. Invariant: a project that is written
// uses only contents that are stored, and takes their mark away in the same transaction.

// MissingBlobs returns which contents the caller has to store.
func (s Files) MissingBlobs(_ context.Context, req *carav1.MissingBlobsRequest) (*carav1.MissingBlobsResponse, error) {
	out := &carav1.MissingBlobsResponse{}
	for _, digest := range req.GetDigests() {
		if b, ok := state.Get[*carav1.Blob](s.DB.Cache, digest); !ok || b.GetUnusedTime() != nil {
			out.Digests = append(out.Digests, digest)
		}
	}
	return out, nil
}

// PutBlob stores a content, or takes the mark of a stored one away.
func (s Files) PutBlob(ctx context.Context, req *carav1.BlobContent) (*carav1.PutBlobResponse, error) {
	digest := api.Digest(req.GetContent())
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		old, ok := state.Read[*carav1.Blob](t, digest)
		if ok {
			rules.KeepBlob(t, old)
			return nil
		}
		if _, bytes := storedBlobs(t.Seen); bytes+int64(len(req.GetContent())) > rules.MaxBlobBytes {
			return api.TooLarge("the files of all projects are larger than %d MiB together; put large files into images or volumes", rules.MaxBlobBytes>>20)
		}
		t.Put(&carav1.Blob{
			Metadata: &carav1.ObjectMeta{Name: digest, Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)}, Size: int32(len(req.GetContent())),
		})
		t.Write(state.BlobContentKey(digest), proto.CloneOf(req))
		return nil
	})
	return &carav1.PutBlobResponse{Digest: digest}, err
}

func storedBlobs(r state.Reader) (count int32, bytes int64) {
	all := state.List[*carav1.Blob](r, "")
	for _, b := range all {
		bytes += int64(b.GetSize())
	}
	return int32(len(all)), bytes
}

// GetBlob returns a content to a node that runs a project which uses it.
func (s Files) GetBlob(ctx context.Context, req *carav1.GetRequest) (*carav1.BlobContent, error) {
	node, used := identity.ActorOf(ctx).Node(), false
	for _, name := range s.DB.Cache.View().ProjectsOnNode(node) {
		p, ok := state.Get[*carav1.Project](s.DB.Cache, name)
		used = used || ok && p.GetStatus().GetNodeRef() == node && slices.Contains(api.Blobs(p.GetSpec()), req.GetName())
	}
	if !used {
		return nil, api.Forbidden("no project of node %s uses this file", node)
	}
	kv, err := s.DB.Store.Get(ctx, state.BlobContentKey(req.GetName()))
	if errors.Is(err, store.ErrNotFound) {
		return nil, api.NotFound("the content %.12s of a file is not stored", req.GetName())
	}
	if err != nil {
		return nil, state.StoreError(err)
	}
	m, err := state.Decode(&carav1.BlobContent{}, kv.Value, kv.Modified)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kv.Key, err)
	}
	return m.(*carav1.BlobContent), nil
}

// TrimBlobs marks contents that nothing uses, and deletes those that have been unused since before a time.
func (s Files) TrimBlobs(ctx context.Context, req *carav1.TrimBlobsRequest) (*carav1.TrimBlobsResponse, error) {
	blobs := state.List[*carav1.Blob](s.DB.Cache, "")
	used := usedBlobs(s.DB.Cache)
	if slices.ContainsFunc(blobs, func(b *carav1.Blob) bool { return !used[b.GetMetadata().GetName()] }) {
		if err := s.usedByHistory(ctx, used); err != nil {
			return nil, err
		}
	}
	out := &carav1.TrimBlobsResponse{}
	for batch := range slices.Chunk(blobs, rules.BlobBatch) {
		deleted := int32(0)
		err := s.DB.Transact(ctx, func(t *state.Tx) error {
			deleted = trimBlobs(t, batch, used, req.GetBefore())
			return nil
		})
		if err != nil {
			return nil, err
		}
		out.Deleted += deleted
	}
	out.Kept, out.KeptBytes = storedBlobs(s.DB.Cache)
	return out, nil
}

// trimBlobs marks, keeps or deletes each content, and returns how many it deletes. It decides on what was used before the
// transaction. A project that began to use a marked content since then has changed the Blob, so the revision differs.
func trimBlobs(t *state.Tx, batch []*carav1.Blob, used map[string]bool, before *timestamppb.Timestamp) (deleted int32) {
	for _, seen := range batch {
		digest := seen.GetMetadata().GetName()
		if used[digest] && seen.GetUnusedTime() == nil {
			continue
		}
		b, ok := state.Read[*carav1.Blob](t, digest)
		switch {
		case !ok || b.GetMetadata().GetResourceVersion() != seen.GetMetadata().GetResourceVersion():
		case used[digest]:
			rules.KeepBlob(t, b)
		case b.GetUnusedTime() == nil:
			b = proto.CloneOf(b)
			b.UnusedTime = timestamppb.New(t.Now)
			t.Put(b)
		case b.GetUnusedTime().AsTime().Before(before.AsTime()):
			t.Remove(state.KindBlob, digest)
			t.Write(state.BlobContentKey(digest), nil)
			deleted++
		}
	}
	return deleted
}

// usedBlobs returns the contents that projects and claims use.
func usedBlobs(r state.Reader) map[string]bool {
	used := map[string]bool{}
	add := func(p *carav1.Project) {
		for _, digest := range api.Blobs(p.GetSpec()) {
			used[digest] = true
		}
	}
	for _, p := range state.List[*carav1.Project](r, "") {
		add(p)
	}
	for _, c := range state.List[*carav1.Claim](r, "") {
		add(c.GetSpec().GetProject())
	}
	for _, c := range state.List[*carav1.StagedClaim](r, "") {
		add(c.GetClaim().GetSpec().GetProject())
	}
	return used
}

// usedByHistory adds the contents that earlier specs of projects use, for rollbacks.
func (s Files) usedByHistory(ctx context.Context, used map[string]bool) error {
	for after := ""; ; {
		page, err := s.DB.Store.List(ctx, "revisions/", store.ListOptions{Limit: 500, After: after})
		if err != nil {
			return state.StoreError(err)
		}
		for _, kv := range page.KVs {
			m, err := state.Decode(&carav1.Revision{}, kv.Value, kv.Modified)
			if err != nil {
				return fmt.Errorf("read %s: %w", kv.Key, err)
			}
			for _, digest := range api.Blobs(m.(*carav1.Revision).GetProject().GetSpec()) {
				used[digest] = true
			}
			after = kv.Key
		}
		if !page.More {
			return nil
		}
	}
}
