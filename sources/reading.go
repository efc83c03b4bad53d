package sources

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
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

// parse reads the files whose content is unknown, and the files that they use. It parses several manifests at the same time.
func (d *reader) parse(ctx context.Context, claims []*carav1.Claim) (*Reading, error) {
	r := d.newReading()
	byName := make(map[string]*carav1.ClaimSpec, len(claims))
	for _, c := range claims {
		byName[c.GetSpec().GetProject().GetMetadata().GetName()] = c.GetSpec()
	}
	if d.src.GetSpec().GetFormat() == api.FormatCompose {
		return r, d.parseCompose(ctx, byName, r)
	}
	r.Files = make([]Parsed, len(d.tree.Files))
	docs := make([][]manifest.Document, len(r.Files)) // of the files that use other files
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	err := d.readFiles(ctx, byName, r, func(i int, data []byte) {
		work.Go(func() (err error) {
			r.Files[i], docs[i], err = parseSafely(d.tree.Files[i], data, d.how())
			return readError(ctx, err, "parse %s at %.12s", d.tree.Files[i].Path, d.tree.Revision)
		})
	})
	if err = cmp.Or(err, work.Wait()); err != nil {
		return nil, err
	}
	using := map[int][]manifest.Document{}
	for i, found := range docs {
		if len(found) == 0 {
			continue
		}
		if r.Files[i].Needs, err = d.files.needs(ctx, r.Files[i].Path, found); err != nil { // now, so that the driver knows them before the first is read
			return nil, err
		}
		using[i] = found
	}
	return r, d.complete(ctx, using, r)
}

// readFiles reads the tree's files, one after the other, and calls parse for each content that is unknown and fit for a manifest. It
// sets the other files of the reading.
func (d *reader) readFiles(ctx context.Context, claims map[string]*carav1.ClaimSpec, r *Reading, parse func(i int, data []byte)) error {
	var total int64
	for i, f := range d.tree.Files {
		known, ok, err := d.remembered(ctx, f, claims)
		if err != nil {
			return err
		}
		if ok {
			r.Files[i] = known
			continue
		}
		data, unfit, err := readFile(ctx, f)
		if err != nil {
			return readError(ctx, err, "read %s at %.12s", f.Path, d.tree.Revision)
		}
		if unfit != nil {
			r.Files[i] = *unfit
			continue
		}
		if total += int64(len(data)); total > MaxSnapshotBytes {
			return Human(api.ReasonTooLarge, "the manifests are larger than %d MiB together, the limit of a source: narrow it with spec.path or spec.include", MaxSnapshotBytes>>20)
		}
		parse(i, data)
	}
	return nil
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

// readFile reads a file. unfit is the result for a content that is not fit for a manifest.
func readFile(ctx context.Context, f File) (data []byte, unfit *Parsed, err error) {
	data, err = safely(func() ([]byte, error) { return f.Read(ctx) })
	var bad *FileError
	switch {
	case !errors.As(err, &bad):
		return data, nil, err
	case manifest.KnownName(f.Path) != "":
		p := skipped(f, manifest.KnownName(f.Path))
		return nil, &p, nil
	}
	return nil, &Parsed{Path: f.Path, Hash: f.Hash, Problems: []*carav1.FileProblem{{File: f.Path, Message: bad.Message}}}, nil
}

// parseSafely parses a file. It returns the documents only if they use other files; otherwise the projects are complete, and have their
// hashes.
func parseSafely(f File, data []byte, how manifest.Reading) (parsed Parsed, docs []manifest.Document, err error) {
	parsed, err = safely(func() (Parsed, error) {
		var p Parsed
		if p, docs = parseFile(f, data, how); !slices.ContainsFunc(docs, func(d manifest.Document) bool { return len(d.Froms()) > 0 }) {
			docs = nil
			p.hash()
		}
		return p, nil
	})
	return parsed, docs, err
}
