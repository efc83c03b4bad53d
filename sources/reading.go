package sources

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest"
)

// newReading returns what is known about a tree before its files are read.
func (p *pass) newReading(tree *Tree) *Reading {
	r := &Reading{
		Source: p.src.Metadata.Name, SourceUID: p.src.Metadata.Uid, Revision: tree.Revision,
		Problems: tree.Problems, Warnings: tree.Warnings, Unread: tree.Unread,
	}
	if tree.Ref != "" || tree.Author != "" { // a directory has no author
		r.Author, r.Subject = text.Clip(tree.Author, 512), text.Clip(tree.Subject, 512)
		if !tree.Time.IsZero() {
			r.Time = timestamppb.New(tree.Time)
		}
	}
	return r
}

// parse reads the files whose content is unknown, and the files that they use.
func (p *pass) parse(ctx context.Context, tree *Tree, claims []*carav1.Claim, files *shelf) (*Reading, error) {
	r := p.newReading(tree)
	byName := make(map[string]*carav1.ClaimSpec, len(claims))
	for _, c := range claims {
		byName[c.GetSpec().GetProject().GetMetadata().GetName()] = c.GetSpec()
	}
	if p.src.GetSpec().GetFormat() == api.FormatCompose {
		return r, p.parseCompose(ctx, tree, byName, files, r)
	}
	var total int64
	docs := map[int][]manifest.Document{} // of the files that use other files
	for _, f := range tree.Files {
		known, ok, err := p.remembered(ctx, f, byName, files)
		if err != nil {
			return nil, err
		}
		if ok {
			r.Files = append(r.Files, known)
			continue
		}
		parsed, found, size, err := readFile(ctx, f, p.how())
		if err != nil {
			return nil, readError(ctx, err, "read %s at %.12s", f.Path, tree.Revision)
		}
		if total += int64(size); total > MaxSnapshotBytes {
			return nil, Human(api.ReasonTooLarge, "the manifests are larger than %d MiB together, the limit of a source: narrow it with spec.path or spec.include", MaxSnapshotBytes>>20)
		}
		if parsed.Needs, err = files.needs(ctx, f.Path, found); err != nil { // now, so that the driver knows them before the first is read
			return nil, err
		}
		docs[len(r.Files)] = found
		r.Files = append(r.Files, parsed)
	}
	return r, p.complete(ctx, files, docs, r)
}

// complete reads the contents that files of the reading use, and puts them into the documents of these files.
func (p *pass) complete(ctx context.Context, files *shelf, docs map[int][]manifest.Document, r *Reading) error {
	if err := files.read(ctx); err != nil {
		return err
	}
	for i, found := range docs {
		r.Files[i].Problems = append(r.Files[i].Problems, files.fill(r.Files[i].Path, found)...)
		r.Files[i].hash()
	}
	return nil
}

// remembered returns a file from memory, if neither it nor what it uses has changed.
func (p *pass) remembered(ctx context.Context, f File, claims map[string]*carav1.ClaimSpec, files *shelf) (Parsed, bool, error) {
	known, ok := p.st.memory.known(f, claims)
	if !ok {
		return Parsed{}, false, nil
	}
	same, err := files.unchanged(ctx, known.Needs)
	return known, same, err
}

// how returns how the source's files are read.
func (p *pass) how() manifest.Reading {
	return manifest.Reading{Limits: manifest.Limits{Bytes: MaxFileBytes}, Vars: p.src.GetSpec().GetVars(), Keys: p.keys}
}

// readFile reads and parses a file. If its content is not fit for a manifest, the result says so, and err is nil.
func readFile(ctx context.Context, f File, how manifest.Reading) (parsed Parsed, docs []manifest.Document, size int, err error) {
	data, err := safely(func() ([]byte, error) { return f.Read(ctx) })
	var unfit *FileError
	switch {
	case errors.As(err, &unfit) && manifest.KnownName(f.Path) != "":
		return skipped(f, manifest.KnownName(f.Path)), nil, 0, nil
	case errors.As(err, &unfit):
		return Parsed{Path: f.Path, Hash: f.Hash, Problems: []*carav1.FileProblem{{File: f.Path, Message: unfit.Message}}}, nil, 0, nil
	case err != nil:
		return Parsed{}, nil, 0, err
	}
	parsed, docs = parseFile(f, data, how)
	return parsed, docs, len(data), nil
}
