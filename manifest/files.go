package manifest

import (
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Froms returns the paths that a project reads files from, relative to its manifest.
func (d Document) Froms() []string {
	var all []string
	d.eachFrom(func(_ string, f *carav1.File) { all = append(all, f.GetFrom()) })
	return all
}

// eachFrom calls visit with each file that has `from`, and the path of its field.
func (d Document) eachFrom(visit func(field string, f *carav1.File)) {
	p, ok := d.Object.(*carav1.Project)
	if !ok {
		return
	}
	for i, s := range p.GetSpec().GetServices() {
		for j, f := range s.GetFiles() {
			if f.GetFrom() != "" {
				visit(fmt.Sprintf("spec.services[%d].files[%d]", i, j), f)
			}
		}
	}
}

// Fill sets the entries of each file that has `from`. find returns them for a path relative to the manifest, and whether the
// path is a folder. Its error says what is wrong with the path. The result has the problems, with their positions.
func (d Document) Fill(find func(from string) (entries []*carav1.FileEntry, folder bool, err error)) []*carav1.FileProblem {
	p, filled := newParser(d.File, Limits{}), false
	d.eachFrom(func(field string, f *carav1.File) {
		if len(f.GetEntries()) > 0 {
			return // the manifest was written from a stored project
		}
		filled = true
		line, column := d.Position(field + ".from")
		entries, folder, err := find(f.GetFrom())
		switch {
		case err != nil:
			p.problemAt(line, column, field+".from", err.Error())
		case !folder && strings.HasSuffix(f.GetFrom(), "/"):
			p.problemAt(line, column, field+".from", fmt.Sprintf("%s is a file, not a folder; write it without the slash", f.GetFrom()))
		case len(entries) == 0:
			p.problemAt(line, column, field+".from", fmt.Sprintf("the folder %s has no files", f.GetFrom()))
		}
		f.Entries = entries
	})
	if filled && len(p.problems) == 0 { // else the document is as it was when it was parsed
		p.validate(d)
	}
	d.toOrigins(p.problems)
	return p.problems
}

// toOrigins moves problems to the files that the object was converted from.
func (d Document) toOrigins(problems []*carav1.FileProblem) {
	for _, p := range problems {
		for field := p.GetPath(); d.Origins != nil && field != ""; field = field[:max(0, strings.LastIndex(field, "."))] {
			if at, ok := d.Origins[field]; ok {
				p.File, p.Line, p.Column, p.Path = at.File, int32(at.Line), int32(at.Column), at.Path //nolint:gosec // positions in a file of 1 MiB
				break
			}
		}
	}
}

// Unfilled returns a problem for each file whose entries are set in the manifest, where only Cara sets them.
func (d Document) Unfilled() []*carav1.FileProblem {
	p := newParser(d.File, Limits{})
	d.eachFrom(func(field string, f *carav1.File) {
		if len(f.GetEntries()) > 0 {
			line, column := d.Position(field + ".entries")
			p.problemAt(line, column, field+".entries", "is set by Cara; remove it")
		}
	})
	return p.problems
}

// TooLargeFile returns what is wrong with a file that is too large for `from`.
func TooLargeFile(path string, size int64) error {
	return fmt.Errorf("%s has %d KiB; the limit of a file is %d KiB: put larger files into the image or a volume", path, (size+1023)>>10, api.MaxFileBytes>>10)
}
