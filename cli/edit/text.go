package edit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/local"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// edit runs the editor until the server takes the text, or the person gives up.
func (s *session) edit(ctx context.Context) error {
	text, err := manifest.Encode(s.original)
	if err != nil {
		return err
	}
	file, err := newFile(s.ref.Kind.Lower() + "-" + s.ref.Name)
	if err != nil {
		return err
	}
	var problems []string
	for {
		shown := append([]byte(s.comments(problems)), text...)
		saved, err := s.editor(ctx, file, shown)
		if err != nil { // also what the editor has saved before it failed
			now, readErr := local.Reader{}.File(file)
			return s.keep(file, err, len(problems) > 0 || readErr == nil && !bytes.Equal(now, shown))
		}
		before := text
		text = withoutComments(saved)
		switch {
		case len(bytes.TrimSpace(text)) == 0:
			return s.keep(file, errors.New("the file is empty: nothing was sent"), false)
		case bytes.Equal(text, before) && len(problems) > 0:
			return s.keep(file, errors.New("nothing was sent: the text still has the problem"), true)
		}
		object, wrong := s.read(text)
		switch {
		case len(wrong) > 0:
		case proto.Equal(object, s.original):
			fmt.Fprintf(s.Out, "%s unchanged: nothing was sent\n", s.ref)
			return os.Remove(file)
		default:
			problem, err := s.send(ctx, object)
			switch {
			case err == nil && problem == nil:
				return os.Remove(file)
			case err != nil:
				return s.keep(file, err, true)
			case problem.GetTitle() != api.TitleInvalid:
				return s.keep(file, s.refusal(problem), true)
			}
			wrong = placed(text, problem)
		}
		problems = s.lines(wrong)
	}
}

// newFile makes a file for the text, which only this person can read. Its name tells editors the language.
func newFile(name string) (string, error) {
	f, err := os.CreateTemp("", "caractrl-"+name+"-*.yaml")
	if err != nil {
		return "", fmt.Errorf("make a file for the editor: %w", err)
	}
	return f.Name(), f.Close()
}

// editor opens a text in the person's editor and returns what it saved.
func (s *session) editor(ctx context.Context, file string, text []byte) ([]byte, error) {
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("write the file for the editor: %w", err)
	}
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$@"`, editor, file) // it may have arguments, such as `code --wait`
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the editor %q ended with %w: nothing was sent; $VISUAL or $EDITOR chooses another one", term.Line(editor), err)
	}
	saved, err := local.Reader{}.File(file)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read what the editor saved: %w", err)
	case len(saved) > local.MaxInput: // the rest would be lost in the next round
		return nil, fmt.Errorf("the text is larger than %d MiB: nothing was sent", local.MaxInput>>20)
	}
	return saved, nil
}

// withoutComments removes the lines on top that begin with #.
func withoutComments(text []byte) []byte {
	for bytes.HasPrefix(text, []byte("#")) {
		_, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
	}
	return text
}

// keep returns err. If the file has text of the person, it stays, and the error says where.
func (s *session) keep(file string, err error, typed bool) error {
	if !typed {
		return errors.Join(err, os.Remove(file))
	}
	detail := strings.TrimSuffix(api.ProblemOf(err).GetDetail(), ".")
	return fmt.Errorf("%s; your text is in %s", detail, file)
}

// refusal says what to do if the server does not take a valid object.
func (s *session) refusal(p *carav1.Problem) error {
	if p.GetTitle() == api.TitleConflict {
		return fmt.Errorf("nothing was sent: %s; caractrl diff -f FILE compares your text with what there is now, caractrl apply -f FILE sends it",
			strings.TrimSuffix(p.GetDetail(), "."))
	}
	return errors.New("nothing was changed: " + p.GetDetail())
}

// read parses the text, which must still be about the same object.
func (s *session) read(text []byte) (proto.Message, []*carav1.FileProblem) {
	docs, problems := manifest.Parse("", text, manifest.Limits{})
	if len(problems) > 0 {
		return nil, problems
	}
	if len(docs) != 1 || docs[0].Kind != s.ref.Kind.Name || docs[0].Name != s.ref.Name {
		return nil, []*carav1.FileProblem{{Message: "the file must have " + s.ref.String() + " and nothing else; apply other objects with caractrl apply -f FILE"}}
	}
	d := docs[0]
	if p, ok := d.Object.(*carav1.Project); ok {
		problems = s.files(d, p)
	}
	return d.Object, problems
}

// files checks the files of the repository that a project uses. The text has only their digests, so they can stay or go.
func (s *session) files(d manifest.Document, p *carav1.Project) (problems []*carav1.FileProblem) {
	known := map[string]*carav1.File{}
	for _, service := range s.original.(*carav1.Project).GetSpec().GetServices() {
		for _, f := range service.GetFiles() {
			known[f.GetFrom()] = f
		}
	}
	for i, service := range p.GetSpec().GetServices() {
		for j, f := range service.GetFiles() {
			was := known[f.GetFrom()]
			if f.GetFrom() == "" || was != nil && proto.Equal(&carav1.File{Entries: was.GetEntries()}, &carav1.File{Entries: f.GetEntries()}) {
				continue
			}
			field := fmt.Sprintf("spec.services[%d].files[%d].from", i, j)
			line, column := d.Position(field)
			problems = append(problems, &carav1.FileProblem{
				Line: int32(line), Column: int32(column), Path: field,
				Message: "caractrl edit reads no other files: use content, or apply a manifest beside the file",
			})
		}
	}
	return problems
}

// placed returns the server's problem with the lines of its fields.
func placed(text []byte, p *carav1.Problem) (out []*carav1.FileProblem) {
	docs, _ := manifest.Parse("", text, manifest.Limits{})
	for _, e := range p.GetErrors() {
		problem := &carav1.FileProblem{Path: e.GetField(), Message: e.GetMessage()}
		if len(docs) == 1 {
			line, column := docs[0].Position(e.GetField())
			problem.Line, problem.Column = int32(line), int32(column)
		}
		out = append(out, problem)
	}
	if len(out) == 0 {
		out = append(out, &carav1.FileProblem{Message: p.GetDetail()})
	}
	return out
}

// lines formats problems with the lines that they have below the comments.
func (s *session) lines(problems []*carav1.FileProblem) []string {
	above := strings.Count(s.comments(make([]string, len(problems))), "\n")
	out := make([]string, len(problems))
	for i, p := range problems {
		p = proto.CloneOf(p)
		p.File = ""
		out[i] = term.Line(manifest.Format(p))
		if p.GetLine() > 0 {
			out[i] = fmt.Sprintf("line %d: %s", int(p.GetLine())+above, out[i])
		}
	}
	return out
}
