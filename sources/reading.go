package sources

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/manifest/sops"
)

// reader turns the files of a tree into what they declare.
type reader struct {
	src    *carav1.Source
	tree   *Tree
	keys   *sops.Keys // nil without spec.decryption
	memory memory
	files  *shelf
}

// newReading returns what is known about a tree before its files are read.
func (d *reader) newReading() *Reading {
	tree := d.tree
	r := &Reading{
		Source: d.src.Metadata.Name, SourceUID: d.src.Metadata.Uid, Revision: tree.Revision,
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
func (d *reader) parse(ctx context.Context, claims []*carav1.Claim) (*Reading, error) {
	r := d.newReading()
	byName := make(map[string]*carav1.ClaimSpec, len(claims))
	for _, c := range claims {
		byName[c.GetSpec().GetProject().GetMetadata().GetName()] = c.GetSpec()
	}
	if d.src.GetSpec().GetFormat() == api.FormatCompose {
		return r, d.parseCompose(ctx, byName, r)
	}
	var total int64
	docs := map[int][]manifest.Document{} // of the files that use other files
	for _, f := range d.tree.Files {
		known, ok, err := d.remembered(ctx, f, byName)
		if err != nil {
			return nil, err
		}
		if ok {
			r.Files = append(r.Files, known)
			continue
		}
		parsed, found, size, err := readFile(ctx, f, d.how())
		if err != nil {
			return nil, readError(ctx, err, "read %s at %.12s", f.Path, d.tree.Revision)
		}
		if total += int64(size); total > MaxSnapshotBytes {
			return nil, Human(api.ReasonTooLarge, "the manifests are larger than %d MiB together, the limit of a source: narrow it with spec.path or spec.include", MaxSnapshotBytes>>20)
		}
		if parsed.Needs, err = d.files.needs(ctx, f.Path, found); err != nil { // now, so that the driver knows them before the first is read
			return nil, err
		}
		docs[len(r.Files)] = found
		r.Files = append(r.Files, parsed)
	}
	return r, d.complete(ctx, docs, r)
}

// complete reads the contents that files of the reading use, and puts them into the documents of these files.
func (d *reader) complete(ctx context.Context, docs map[int][]manifest.Document, r *Reading) error {
	if err := d.files.read(ctx); err != nil {
		return err
	}
	for i, found := range docs {
		r.Files[i].Problems = append(r.Files[i].Problems, d.files.fill(r.Files[i].Path, found)...)
		r.Files[i].hash()
	}
	return nil
}

// remembered returns a file from memory, if neither it nor what it uses has changed.
func (d *reader) remembered(ctx context.Context, f File, claims map[string]*carav1.ClaimSpec) (Parsed, bool, error) {
	known, ok := d.memory.known(f, claims)
	if !ok {
		return Parsed{}, false, nil
	}
	same, err := d.files.unchanged(ctx, known.Needs)
	return known, same, err
}

// how returns how the source's files are read.
func (d *reader) how() manifest.Reading {
	return manifest.Reading{Limits: manifest.Limits{Bytes: MaxFileBytes}, Vars: d.src.GetSpec().GetVars(), Keys: d.keys}
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
