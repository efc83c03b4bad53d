package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// width is the length of the lines of a text.
const width = 100

// page prints what explain shows.
type page struct{ io.Writer }

// field prints one field and the fields below it.
func (p page) field(kind, path string, f *Field, recursive bool) {
	fmt.Fprintln(p, "KIND:   ", kind)
	if path != "" {
		fmt.Fprintf(p, "FIELD:   %s <%s>\n", path, f.typeName())
	}
	if rules := f.rules(); len(rules) > 0 {
		fmt.Fprintln(p, "RULES:  ", strings.Join(rules, "; "))
	}
	fmt.Fprintln(p)
	p.text(f.Description, "")
	if len(f.below().Properties) == 0 {
		return
	}
	fmt.Fprintln(p, "\nFIELDS:")
	if recursive {
		p.tree(f.below(), "  ")
		return
	}
	for i, name := range f.below().names() {
		if i > 0 {
			fmt.Fprintln(p)
		}
		sub := f.below().Properties[name]
		fmt.Fprintf(p, "  %s <%s>%s\n", name, sub.typeName(), f.below().mark(name))
		if rules := sub.rules(); len(rules) > 0 {
			fmt.Fprintln(p, "    ("+strings.Join(rules, "; ")+")")
		}
		p.text(sub.Description, "    ")
	}
}

// tree prints the names and types of all fields below f.
func (p page) tree(f *Field, indent string) {
	for _, name := range f.names() {
		sub := f.Properties[name]
		fmt.Fprintf(p, "%s%s <%s>%s\n", indent, name, sub.typeName(), f.mark(name))
		p.tree(sub.below(), indent+"  ")
	}
}

// mark returns the mark of a required field.
func (f *Field) mark(name string) string {
	if slices.Contains(f.Required, name) {
		return " required"
	}
	return ""
}

// text prints a text in lines of at most width characters.
func (p page) text(text, indent string) {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		line := indent
		for word := range strings.FieldsSeq(paragraph) {
			if len(line) > len(indent) && len(line)+1+len(word) > width {
				fmt.Fprintln(p, line)
				line = indent
			}
			if len(line) > len(indent) {
				line += " "
			}
			line += word
		}
		fmt.Fprintln(p, line)
	}
}
