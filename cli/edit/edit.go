// Package edit is the command `caractrl edit`: it opens an object in an editor and sends what the editor saved. What a person
// has typed is never lost: if the server does not take it, the text stays in a file.
package edit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sendWithin limits how long the server may take for an object, so that the command ends with the text in a file.
const sendWithin = time.Minute

// Cluster is where objects come from and go to, and the terminal of the editor.
type Cluster struct {
	In       io.Reader
	Out, Err io.Writer
	Conn     grpc.ClientConnInterface
	// Terms returns the override that the person asked for; nil if there is none.
	Terms func() (*carav1.OverrideTerms, error)
}

// Can reports whether objects of a kind can be edited: the manifests, but no Secrets, because the server never shows their
// values.
func Can(k kind.Kind) bool {
	return k.Name == api.KindProject || k.Name == api.KindSource || k.Name == api.KindNode
}

// Command returns the command.
func Command(c Cluster) *cobra.Command {
	return &cobra.Command{
		Use: "edit KIND NAME | edit KIND/NAME", Short: "Change a project, source or node in your editor",
		Long: "Change a project, source or node in your editor: $VISUAL, else $EDITOR, else vi. What you save is sent when the editor\n" +
			"ends. A mistake opens the editor again, with the message on top. Nothing is sent if nothing changed, or if somebody else\n" +
			"changed the object meanwhile; your text is then in a file.\n\n" +
			"Git decides about the projects of a source: change the manifest there. With --override, git does not change the project\n" +
			"until the override ends.",
		Example: "  caractrl edit source platform\n  EDITOR='code --wait' caractrl edit project/web\n" +
			"  caractrl edit project web --override --reason 'the new version leaks' --for 2h",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parse(args)
			if err != nil {
				return err
			}
			terms, err := c.Terms()
			if err != nil {
				return err
			}
			s := &session{Cluster: c, ref: ref, terms: terms}
			return s.run(cmd.Context())
		},
	}
}

func parse(args []string) (kind.Ref, error) {
	refs, err := kind.ParseRefs(args)
	switch {
	case err != nil:
		return kind.Ref{}, err
	case len(refs) != 1 || refs[0].Name == "":
		return kind.Ref{}, errors.New("name one object, as in `edit project NAME` or `edit project/NAME`")
	case refs[0].Kind.Name == api.KindSecret:
		return kind.Ref{}, errors.New("the server never shows the values of a secret: replace it with caractrl create secret, or apply its manifest")
	case !Can(refs[0].Kind):
		return kind.Ref{}, fmt.Errorf("%s cannot be edited; projects, sources and nodes can", refs[0].Kind.Plural)
	}
	return refs[0], nil
}

// session is one run of the command.
type session struct {
	Cluster
	ref      kind.Ref
	terms    *carav1.OverrideTerms
	original proto.Message // without what the server sets
	version  string        // resourceVersion of the original
	uid      string
}

func (s *session) run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	// A Ctrl-C is for the editor while it runs, and must not end what it has saved.
	return s.edit(context.WithoutCancel(ctx))
}

// open fetches the object, and asks whether the person may change it before they write anything.
func (s *session) open(ctx context.Context) error {
	found, err := s.ref.Kind.Get(ctx, s.Conn, s.ref.Name)
	if err != nil {
		return err
	}
	s.version, s.uid = api.Meta(found).GetResourceVersion(), api.Meta(found).GetUid()
	s.original = declared(found)
	probe := proto.CloneOf(s.original)
	meta := api.Meta(probe)
	meta.Annotations = map[string]string{"caractrl": "edit"}
	problem, err := s.apply(ctx, probe, true)
	switch {
	case err != nil:
		return err
	case problem.GetTitle() == api.TitleOwned:
		return s.gitWins(found)
	case problem.GetTitle() == api.TitleForbidden:
		return errors.New(problem.GetDetail())
	}
	return nil
}

// gitWins says where the manifest of the project is, and how to override git.
func (s *session) gitWins(m proto.Message) error {
	place, from := "its manifest", api.Meta(m).GetOrigin()
	if from.GetFile() != "" {
		place = api.Place(from.GetFile(), from.GetLine(), 0)
	}
	return fmt.Errorf("%s belongs to %s, and git decides: change %s there; or override git for a while with "+
		"caractrl edit %s --override --reason WHY --for 2h", s.ref, api.Meta(m).GetOwner(), place, s.ref)
}

// declared returns an object without what the server sets.
func declared(m proto.Message) proto.Message {
	out := proto.Clone(m)
	meta := api.Meta(out)
	kept := &carav1.ObjectMeta{Name: meta.GetName(), Labels: meta.GetLabels(), Annotations: meta.GetAnnotations()}
	proto.Reset(meta)
	proto.Merge(meta, kept)
	if status := out.ProtoReflect().Descriptor().Fields().ByName("status"); status != nil {
		out.ProtoReflect().Clear(status)
	}
	return out
}

// send sends an object if nobody has changed what was edited. A new version is no conflict if only the status differs: that of a
// project changes all the time.
func (s *session) send(ctx context.Context, m proto.Message) (*carav1.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	for {
		problem, err := s.apply(ctx, m, false)
		if err != nil || problem.GetTitle() != api.TitleConflict {
			return problem, err
		}
		now, err := s.ref.Kind.Get(ctx, s.Conn, s.ref.Name)
		if err != nil || api.Meta(now).GetUid() != s.uid || api.Meta(now).GetResourceVersion() == s.version || !proto.Equal(declared(now), s.original) {
			return problem, nil
		}
		s.version = api.Meta(now).GetResourceVersion()
	}
}

// apply sends an object if nobody has changed it since it was opened. It returns the server's problem with it.
func (s *session) apply(ctx context.Context, m proto.Message, dryRun bool) (*carav1.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	m = proto.Clone(m)
	api.Meta(m).ResourceVersion = s.version
	resp, err := carav1.NewApplyServiceClient(s.Conn).Apply(ctx, &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(m)}, DryRun: dryRun, Override: s.terms})
	if err != nil {
		return nil, err
	}
	for _, r := range resp.GetResults() {
		if r.GetAction() == api.ApplyRefused {
			return r.GetProblem(), nil
		}
		if !dryRun {
			fmt.Fprintf(s.Out, "%s %s\n", s.ref, term.Line(r.GetAction()))
		}
	}
	return nil, nil
}

// comments are the lines above the object. problems are what is wrong with the text below.
func (s *session) comments(problems []string) string {
	lines := []string{
		"Change " + s.ref.String() + ", save, and leave the editor. Lines that begin with # here on top are ignored.",
		"If you change nothing, or leave the file empty, nothing is sent.",
	}
	if s.terms != nil {
		lines = append(lines, "This overrides git: "+term.Line(s.terms.GetReason()))
	}
	if len(problems) > 0 {
		lines = append(append(lines, "", "Nothing was sent, because of this:"), problems...)
	}
	return "# " + strings.Join(lines, "\n# ") + "\n"
}
