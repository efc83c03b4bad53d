package git

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/sources"
)

var errMalformedTree = errors.New("malformed tree")

// commit is the part of a commit that a snapshot reports.
type commit struct {
	hash    plumbing.Hash
	tree    plumbing.Hash
	author  string
	subject string
	time    time.Time
}

// findCommit follows annotated tags to a commit.
func findCommit(objs objects, h plumbing.Hash) (commit, error) {
	for range 10 {
		o, err := objs.object(h)
		if err != nil {
			return commit{}, err
		}
		switch o.typ {
		case plumbing.CommitObject:
			return readCommit(h, o.data)
		case plumbing.TagObject:
			to, ok := bytes.CutPrefix(o.data, []byte("object "))
			if !ok || len(to) < 40 || !isHash(string(to[:40])) {
				return commit{}, broken(errors.New("malformed tag"))
			}
			h = plumbing.NewHash(string(to[:40]))
		default:
			return commit{}, sources.Human(api.ReasonRefNotFound, "spec.git.ref leads to a %s, not to a commit", o.typ)
		}
	}
	return commit{}, broken(errors.New("tags of tags without end"))
}

func readCommit(h plumbing.Hash, data []byte) (commit, error) {
	c := commit{hash: h}
	head, message, _ := bytes.Cut(data, []byte("\n\n"))
	for line := range strings.Lines(string(head)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var sig gitobject.Signature
		switch key {
		case "tree":
			if !isHash(value) {
				return commit{}, broken(errors.New("malformed commit"))
			}
			c.tree = plumbing.NewHash(value)
		case "author":
			sig.Decode([]byte(value))
			c.author = clip(sig.Name + " <" + sig.Email + ">")
		case "committer":
			sig.Decode([]byte(value))
			c.time = sig.When
		}
	}
	subject, _, _ := strings.Cut(strings.TrimLeft(string(message), "\n"), "\n")
	c.subject = clip(subject)
	return c, nil
}

// clip makes text from a commit safe to display and store.
func clip(s string) string {
	return text.Clip(strings.ToValidUTF8(strings.Map(printable, s), "?"), 500)
}

// checkRoot returns an error that names the missing folder if the subtree does not exist.
func checkRoot(ctx context.Context, objs objects, c commit, m *sources.Match, where string) error {
	if m.Root == "" {
		return nil
	}
	at, walked := c.tree, ""
	for part := range strings.SplitSeq(m.Root, "/") {
		if err := ctx.Err(); err != nil {
			return err
		}
		o, err := objs.object(at)
		if err != nil {
			return err
		}
		walked = join(walked, part)
		e, ok := lookup(o.data, part)
		switch {
		case !ok:
			return sources.Human(api.ReasonPathNotFound, "path %q does not exist in %s: there is no %q; check spec.path", m.Root, where, walked)
		case e.mode != modeDir:
			return sources.Human(api.ReasonPathNotFound, "path %q is not a folder in %s: %q is a file, link or submodule; check spec.path", m.Root, where, walked)
		}
		at = e.hash
	}
	return nil
}

func lookup(tree []byte, name string) (treeEntry, bool) {
	for len(tree) > 0 {
		e, rest, ok := nextEntry(tree)
		if !ok {
			return treeEntry{}, false
		}
		if e.name == name {
			return e, true
		}
		tree = rest
	}
	return treeEntry{}, false
}
