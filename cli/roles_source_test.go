package cli

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// declare publishes a source's next snapshot from the script's files. Projects that are not in them are no longer declared.
// It applies nothing.
func declare(ts *testscript.TestScript, neg bool, args []string) {
	act(2, func(ctx context.Context, h *testServer, a []string) error {
		files := map[string][]byte{}
		for _, name := range a[2:] {
			data, err := os.ReadFile(ts.MkAbs(name))
			if err != nil {
				return err
			}
			files[filepath.Base(name)] = data
		}
		return h.declare(ctx, a[0], a[1], files)
	})(ts, neg, args)
}

func (h *testServer) declare(ctx context.Context, source, rev string, files map[string][]byte) error {
	conn, err := h.loop(ctx, "sources")
	if err != nil {
		return err
	}
	c := carav1.NewSourceServiceClient(conn)
	s, err := c.GetSource(ctx, kind.ByName(source))
	if err != nil {
		return err
	}
	had, err := c.ListClaims(ctx, &carav1.ListClaimsRequest{Source: source})
	if err != nil {
		return err
	}
	uid, at := s.GetMetadata().GetUid(), timestamppb.New(h.clock.now().Add(-time.Hour))
	req := &carav1.PublishSnapshotRequest{Source: source, SourceUid: uid}
	absent := map[string]bool{}
	for _, claim := range had.GetItems() {
		absent[claim.GetSpec().GetProject().GetMetadata().GetName()] = true
	}
	for file, data := range files {
		docs, problems := manifest.Parse(file, data, manifest.Limits{})
		if len(problems) > 0 {
			return fmt.Errorf("%s", manifest.Format(problems[0]))
		}
		for _, d := range docs {
			p := d.Object.(*carav1.Project)
			delete(absent, p.GetMetadata().GetName())
			req.Upserts = append(req.Upserts, &carav1.ClaimSpec{
				Source: source, SourceUid: uid, Project: p, Hash: api.ClaimHash(p), File: "deploy/" + file, Line: int32(d.Line), Revision: rev,
				Present: true, Author: "Ada <ada@example.com>", Subject: "Use " + p.GetSpec().GetServices()[0].GetImage(), CommitTime: at,
			})
		}
	}
	for name := range absent {
		req.Absent = append(req.Absent, name)
	}
	req.Head = &carav1.Snapshot{
		Revision: rev, Sequence: s.GetStatus().GetSnapshot().GetSequence() + 1, Complete: true,
		Files: int32(len(files)), Projects: int32(len(req.Upserts)), Author: "Ada <ada@example.com>", CommitTime: at,
	}
	stream, err := c.PublishSnapshot(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(req); err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// deliver is a git server's webhook, in the way that GitHub signs it.
func (h *testServer) deliver(ctx context.Context, source, secret, event string) error {
	body := `{"ref":"refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/api/v1/sources/"+source+"/webhook", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-GitHub-Event", event)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close() // what became of it is in the source's status
}

// pass applies what a source declares and records the results. It prunes nothing.
func (h *testServer) pass(ctx context.Context, source string) error {
	conn, err := h.loop(ctx, "reconciler")
	if err != nil {
		return err
	}
	c := carav1.NewSourceServiceClient(conn)
	s, err := c.GetSource(ctx, kind.ByName(source))
	if err != nil {
		return err
	}
	claims, err := c.ListClaims(ctx, &carav1.ListClaimsRequest{Source: source})
	if err != nil {
		return err
	}
	done := &carav1.UpdateClaimsRequest{Source: source}
	for _, claim := range claims.GetItems() {
		spec := claim.GetSpec()
		status := claim.GetStatus()
		if spec.GetPresent() {
			if status, err = h.applyClaim(ctx, spec, s.GetSpec().GetAdopt()); err != nil {
				return err
			}
		}
		done.Updates = append(done.Updates, &carav1.ClaimUpdate{Project: spec.GetProject().GetMetadata().GetName(), Status: status})
	}
	if _, err = c.UpdateClaims(ctx, done); err != nil {
		return err
	}
	revision := s.GetStatus().GetSnapshot().GetRevision()
	_, err = c.UpdateSourceStatus(ctx, &carav1.UpdateSourceStatusRequest{Name: source, Uid: s.GetMetadata().GetUid(), AttemptedRevision: &revision})
	return err
}

func (h *testServer) applyClaim(ctx context.Context, spec *carav1.ClaimSpec, adopt string) (*carav1.ClaimStatus, error) {
	conn, err := h.loop(ctx, "reconciler")
	if err != nil {
		return nil, err
	}
	p := spec.GetProject()
	p.Metadata.Origin = &carav1.Origin{
		Source: spec.GetSource(), File: spec.GetFile(), Line: spec.GetLine(), Revision: spec.GetRevision(),
		Author: spec.GetAuthor(), Subject: spec.GetSubject(), CommitTime: spec.GetCommitTime(),
	}
	resp, err := carav1.NewApplyServiceClient(conn).Apply(ctx, &carav1.ApplyRequest{
		Source: spec.GetSource(), Adopt: adopt, Objects: []*carav1.Object{api.Wrap(p)},
	})
	if err != nil {
		return nil, err
	}
	r := resp.GetResults()[0]
	if r.GetAction() == api.ApplyRefused {
		state := r.GetProblem().GetTitle()
		if state == api.TitleOwned {
			state = "Conflict"
		}
		return &carav1.ClaimStatus{State: state, Message: r.GetProblem().GetDetail()}, nil
	}
	return &carav1.ClaimStatus{
		State: "Applied", AppliedHash: spec.GetHash(), AppliedRevision: spec.GetRevision(),
		AppliedTime: timestamppb.New(h.clock.now()), ProjectUid: r.GetUid(),
	}, nil
}
