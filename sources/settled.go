package sources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// A push usually changes a few files of many. If the driver can read the difference, the pass reads, compares and publishes only
// the files that differ, and the projects that they declare. The result is the same as that of a whole reading. Where that is
// not certain, the tree is read whole:
//
//   - The published snapshot must be the one that this process published last, without a problem, without a project that is held,
//     and without a file that depends on anything but its own content: no Secret, no `files[].from`, no keys, no Compose file.
//   - The files of the difference must be as plain, before and after.
//   - A project of the difference must not be declared in any other file.
//   - A project that leaves the source must not be in a path that still exists and is not read.
//   - At least once in wholeEvery, a tree is read whole anyway.

// wholeEvery is the longest time between two whole readings of a source that changes.
const wholeEvery = time.Hour

// settled is what the next difference adds to.
type settled struct {
	head   *carav1.Snapshot // as published last
	at     time.Time        // of the last whole reading
	unread bool             // paths exist that are not read
}

// errUnsettled means that the difference alone does not say what a whole reading would say.
var errUnsettled = errors.New("the tree must be read whole")

// ReadsDifferences reports whether the passes over a source with this spec can read differences. A driver keeps nothing for
// them otherwise. A fixed commit never differs.
func ReadsDifferences(spec *carav1.SourceSpec) bool {
	return spec.GetFormat() != api.FormatCompose && spec.GetDecryption() == nil && spec.GetGit().GetRef().GetCommit() == ""
}

// settle returns what the next difference adds to, or nil if the next tree must be read whole.
func (p *pass) settle(tree *Tree, reading *Reading, change Change, head *carav1.Snapshot) *settled {
	_, differs := p.st.driver.(Differ)
	if !differs || !ReadsDifferences(p.src.GetSpec()) || !change.Complete() || change.kept || len(change.Secrets) > 0 {
		return nil
	}
	for _, f := range reading.Files {
		if len(f.Needs) > 0 {
			return nil
		}
	}
	return &settled{head: head, at: p.began, unread: len(tree.Unread) > 0 || tree.Hidden != nil}
}

// continues reports whether a head is the one that was published last, with the same spec.
func (s *settled) continues(head *carav1.Snapshot, spec *carav1.SourceSpec) bool {
	return head != nil && head.GetSequence() == s.head.GetSequence() && head.GetRevision() == s.head.GetRevision() &&
		head.GetSpecHash() == s.head.GetSpecHash() && head.GetSpecHash() == specHash(spec)
}

// filesAfter returns how many files the source has after a difference.
func (s *settled) filesAfter(diff *Diff) int {
	return int(s.head.GetFiles()) + len(diff.Files) - len(diff.Gone)
}

// step publishes the difference to the last snapshot. It returns nil if the tree must be read whole.
func (p *pass) step(ctx context.Context, head *carav1.Snapshot) (*carav1.Snapshot, error) {
	from := p.st.settled
	driver, differs := p.st.driver.(Differ)
	if from == nil || !differs || !from.continues(head, p.src.GetSpec()) || p.began.Sub(from.at) >= wholeEvery {
		return nil, nil
	}
	diff, err := safely(func() (*Diff, error) { return driver.Diff(ctx, head.GetRevision(), p.revision) })
	if err != nil {
		return nil, p.unsettled(ctx, err)
	}
	if diff.Close != nil {
		defer diff.Close()
	}
	if p.known(head, diff.Revision) { // another tag of the same commit
		p.revision = diff.Revision
		return p.again(ctx, head)
	}
	change, reading, err := p.compare(ctx, from, diff)
	if err != nil {
		return nil, p.unsettled(ctx, err)
	}
	p.revision = diff.Revision
	next := newHead(diff.Tree, change, head)
	next.Files, next.Warnings = int32(from.filesAfter(diff)), from.head.GetWarnings()
	if err := p.publishRead(ctx, next, change); err != nil {
		return nil, err
	}
	for _, f := range diff.Gone {
		delete(p.st.memory, factKey(f.Hash, f.Path)) // another file with that content is read again
	}
	maps.Copy(p.st.memory, remember(reading.Files))
	p.st.settled = &settled{head: next, at: from.at, unread: from.unread || diff.Unread}
	return next, nil
}

// unsettled returns the error of a pass that cannot go on. Every other error is that of the whole reading that follows.
func (p *pass) unsettled(ctx context.Context, err error) error {
	p.st.settled = nil
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.cfg.Logger.Debug("the tree is read whole", "source", p.src.Metadata.Name, "reason", err)
	return nil
}

// compare returns what the files of a difference change.
func (p *pass) compare(ctx context.Context, from *settled, diff *Diff) (Change, *Reading, error) {
	claims, err := p.declaredBefore(diff.Gone)
	if err != nil {
		return Change{}, nil, err
	}
	reader := &reader{src: p.src, tree: diff.Tree, memory: p.st.memory, files: newShelf(p.st, p.src, diff.Tree)}
	reading, err := reader.parse(ctx, slices.Collect(maps.Values(claims)))
	if err != nil {
		return Change{}, nil, err
	}
	before := len(claims)
	for _, f := range reading.Files {
		if len(f.Problems)+len(f.Warnings)+len(f.Needs)+len(f.Secrets) > 0 || f.Skipped != "" {
			return Change{}, nil, errUnsettled
		}
		if err := p.claimsOf(f, claims); err != nil {
			return Change{}, nil, err
		}
	}
	change := Delta(*reading, slices.Collect(maps.Values(claims)))
	change.Projects += int(from.head.GetProjects()) - before
	tooMany := change.Projects > maxProjects(p.src) || from.filesAfter(diff) > MaxFiles
	if tooMany || !change.Complete() || len(change.Warnings) != len(diff.Warnings) || len(change.Absent) > 0 && (from.unread || diff.Unread) {
		return Change{}, nil, errUnsettled
	}
	return change, reading, nil
}

// declaredBefore returns the claims of the projects that files declared, by project.
func (p *pass) declaredBefore(files []File) (map[string]*carav1.Claim, error) {
	claims := map[string]*carav1.Claim{}
	for _, f := range files {
		known, ok := p.st.memory[factKey(f.Hash, f.Path)]
		if !ok || len(known.problems)+len(known.warnings)+len(known.needs) > 0 || known.skipped != "" {
			return nil, fmt.Errorf("%s was not a plain file: %w", f.Path, errUnsettled)
		}
		for _, d := range known.docs {
			c, ok := loop.Get[*carav1.Claim](p.mirror, p.src.Metadata.Name+"/"+d.name)
			spec := c.GetSpec()
			if !ok || !spec.GetPresent() || spec.GetHeld() != "" || spec.GetFile() != f.Path || spec.GetFileHash() != f.Hash || spec.GetHash() != d.hash {
				return nil, fmt.Errorf("the claim of project %s is not as %s declared it: %w", d.name, f.Path, errUnsettled)
			}
			claims[d.name] = c
		}
	}
	return claims, nil
}

// claimsOf adds the claims of projects that a file declares newly. A claim in force is that of another file.
func (p *pass) claimsOf(f Parsed, claims map[string]*carav1.Claim) error {
	for _, d := range f.Docs {
		name := d.Project.GetMetadata().GetName()
		if claims[name] != nil {
			continue
		}
		c, ok := loop.Get[*carav1.Claim](p.mirror, p.src.Metadata.Name+"/"+name)
		switch {
		case ok && c.GetSpec().GetPresent():
			return fmt.Errorf("project %s is declared in %s, too: %w", name, c.GetSpec().GetFile(), errUnsettled)
		case ok:
			claims[name] = c
		}
	}
	return nil
}
