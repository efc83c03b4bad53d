package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// maxMessage is the target size of one message of a snapshot. A single claim or Secret may exceed it.
	maxMessage = 256 << 10
	maxNames   = 1000
	maxErrors  = 100
)

// readingRules is part of the spec hash. Change it when the same files would be parsed differently, so that every source is
// read again after an update.
const readingRules = "2"

// specHash hashes the parts of a spec that affect what is read.
func specHash(spec *carav1.SourceSpec) string {
	h := sha256.New()
	write := func(words ...string) {
		for _, w := range words {
			fmt.Fprintf(h, "%d:%s", len(w), w)
		}
	}
	ref := spec.GetGit().GetRef()
	write(readingRules, spec.GetGit().GetUrl(), ref.GetBranch(), ref.GetTag(), ref.GetSemver(), ref.GetCommit(),
		spec.GetDir().GetPath(), spec.GetPath(), strconv.Itoa(int(spec.GetMaxProjects())))
	if ref := spec.GetDecryption().GetSecretRef(); ref != "" {
		write("decryption", ref)
	}
	write(spec.GetInclude()...)
	write("exclude")
	write(spec.GetExclude()...)
	if rules := parsingRules(spec); rules != "" {
		write("rules", rules)
	}
	return "v1:" + hex.EncodeToString(h.Sum(nil))
}

// parsingRules identifies the parts of a spec that decide what a file means. It is empty for a source without any. A value of a
// Secret is not in it: the agents get it.
func parsingRules(spec *carav1.SourceSpec) string {
	if len(spec.GetVars()) == 0 && spec.GetFormat() != api.FormatCompose {
		return ""
	}
	h := sha256.New()
	if spec.GetFormat() == api.FormatCompose {
		fmt.Fprintf(h, "compose %t %q ", spec.GetCompose().GetLossy(), spec.GetCompose().GetProfiles())
	}
	for _, v := range spec.GetVars() {
		ref := v.GetSecretKeyRef()
		for _, w := range []string{v.GetName(), v.GetValue(), ref.GetName(), ref.GetKey()} {
			fmt.Fprintf(h, "%d:%s", len(w), w)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// newHead returns the head of the next snapshot.
func newHead(tree *Tree, change Change, before *carav1.Snapshot) *carav1.Snapshot {
	head := &carav1.Snapshot{
		Revision: tree.Revision, Sequence: before.GetSequence() + 1, Complete: change.Complete(),
		Ref: text.Clip(tree.Ref, 512), Author: text.Clip(tree.Author, 512), Subject: text.Clip(tree.Subject, 512),
		Files: int32(len(tree.Files)), Projects: int32(change.Projects),
		FileErrors: first(change.Problems), ErrorCount: int32(len(change.Problems)), Warnings: first(change.Warnings),
	}
	if !tree.Time.IsZero() {
		head.CommitTime = timestamppb.New(tree.Time)
	}
	return head
}

func first(problems []*carav1.FileProblem) []*carav1.FileProblem {
	var all []*carav1.FileProblem
	for _, p := range problems[:min(len(problems), maxErrors)] {
		all = append(all, &carav1.FileProblem{
			File: text.Clip(p.File, 4096), Line: p.Line, Column: p.Column, Path: text.Clip(p.Path, 1024), Message: text.Clip(p.Message, 2048),
		})
	}
	return all
}

// answer publishes the current head again with the token of a request, so that the reconciler makes a pass for it and marks
// the request as handled.
func (p *pass) answer(ctx context.Context, head *carav1.Snapshot, token string) (*carav1.Snapshot, error) {
	next := proto.CloneOf(head)
	next.Sequence, next.Token, next.PublishTime = head.Sequence+1, token, nil
	return next, p.publish(ctx, next, Change{})
}

// publish stores a snapshot in one transaction.
func (p *pass) publish(ctx context.Context, head *carav1.Snapshot, change Change) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // releases the stream now, not when it is garbage
	stream, err := p.client.PublishSnapshot(ctx)
	if err != nil {
		return fmt.Errorf("publish %s: %w", head.Revision, err)
	}
	for msg := range messages(p.src, head, (&outcome{pass: p, head: head}).changed(), change) {
		if err := stream.Send(msg); err != nil {
			break // CloseAndRecv returns the reason
		}
	}
	resp, err := stream.CloseAndRecv()
	switch api.Code(err) {
	case codes.OK:
	case codes.InvalidArgument, codes.FailedPrecondition, codes.ResourceExhausted:
		return Human(api.ReasonPublishRefused, "the server refuses the snapshot: %s", text.Clip(api.ProblemOf(err).GetDetail(), 1000))
	default:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("publish %s: %w", head.Revision, err)
	}
	stored, ok := api.ParseRevision(resp.GetResourceVersion())
	if !ok {
		return fmt.Errorf("publish %s: revision %q is not a number", head.Revision, resp.GetResourceVersion())
	}
	p.st.published = stored
	if head.Token != "" {
		p.st.token = head.Token
	}
	return nil
}

// messages splits a snapshot into messages. The first has the head and the conditions.
func messages(src *carav1.Source, head *carav1.Snapshot, conditions []*carav1.Condition, change Change) func(yield func(*carav1.PublishSnapshotRequest) bool) {
	return func(yield func(*carav1.PublishSnapshotRequest) bool) {
		msg := &carav1.PublishSnapshotRequest{Source: src.Metadata.Name, SourceUid: src.Metadata.Uid, Head: head, Conditions: conditions, SecretsRead: change.read}
		size := proto.Size(msg)
		// room begins another message if m does not fit beside what this one has.
		room := func(m proto.Message) bool {
			n := proto.Size(m)
			if size += n; size <= maxMessage || len(msg.Upserts)+len(msg.Secrets) == 0 {
				return true
			}
			full := msg
			msg, size = &carav1.PublishSnapshotRequest{}, n
			return yield(full)
		}
		for _, c := range change.Upserts {
			if !room(c) {
				return
			}
			msg.Upserts = append(msg.Upserts, c)
		}
		for _, s := range change.Secrets {
			if !room(s) {
				return
			}
			msg.Secrets = append(msg.Secrets, s)
		}
		for names := change.Absent; len(names) > 0; {
			n := min(len(names), maxNames)
			msg.Absent, names = names[:n], names[n:]
			if len(names) > 0 {
				if !yield(msg) {
					return
				}
				msg = &carav1.PublishSnapshotRequest{}
			}
		}
		yield(msg)
	}
}
