package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// page prints each message once, below the first kind that has it.
type page struct {
	w    io.Writer
	seen map[protoreflect.FullName]bool
	err  error
}

// kind prints a kind and, below it, every message that it is made of, in the order in which they are named.
func (p *page) kind(m protoreflect.MessageDescriptor) {
	p.message(m, "##")
	var status protoreflect.MessageDescriptor
	for queue := below(m); len(queue) > 0; queue = queue[1:] {
		next := queue[0]
		if p.seen[next.FullName()] {
			continue
		}
		if status == nil && string(next.Name()) == string(m.Name())+"Status" { // what people read comes after what they write
			status = next
			continue
		}
		p.message(next, "###")
		queue = append(queue, below(next)...)
	}
	if status == nil || p.seen[status.FullName()] {
		return
	}
	p.message(status, "###")
	for queue := below(status); len(queue) > 0; queue = queue[1:] {
		if !p.seen[queue[0].FullName()] {
			p.message(queue[0], "###")
			queue = append(queue, below(queue[0])...)
		}
	}
}

// below are the messages of our own that a message's fields have.
func below(m protoreflect.MessageDescriptor) []protoreflect.MessageDescriptor {
	var out []protoreflect.MessageDescriptor
	for i := range m.Fields().Len() {
		if sub := ours(m.Fields().Get(i)); sub != nil {
			out = append(out, sub)
		}
	}
	return out
}

func ours(f protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if f.IsMap() {
		return ours(f.MapValue())
	}
	if m := f.Message(); m != nil && strings.HasPrefix(string(m.FullName()), "cara.v1.") {
		return m
	}
	return nil
}

func (p *page) message(m protoreflect.MessageDescriptor, level string) {
	p.seen[m.FullName()] = true
	p.printf("\n%s %s\n\n%s\n\n| field | type | rules | |\n|---|---|---|---|\n", level, m.Name(), comment(m))
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		text := comment(f)
		if text == "" {
			p.err = errors.Join(p.err, fmt.Errorf("%s has no comment", f.FullName()))
		}
		rules := rulesOf(f)
		if d := defaultOf(text); d != "" {
			rules = append(rules, "default `"+d+"`")
		}
		p.printf("| `%s` | %s | %s | %s |\n", f.JSONName(), typeOf(f), strings.Join(rules, ", "), text)
	}
}

func (p *page) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil {
		p.err = errors.Join(p.err, err)
	}
}

// comment is what stands above a message or field in the contract, in one line that a table can hold.
func comment(d protoreflect.Descriptor) string {
	return strings.ReplaceAll(text(d), "|", `\|`)
}

// defaultOf finds the default where a comment names one: "`30s` by default", "`Always` (the default)", "30 by default".
func defaultOf(text string) string {
	for _, pattern := range []string{
		"`([^`]+)` (?:by default|is the default|\\((?:the )?default\\))", `\b(true|false|\d+) by default`, "`([^`]+)` \\(default\\)", "default is `([^`]+)`",
	} {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	return ""
}

func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map of " + single(f.MapValue())
	case f.IsList():
		return "list of " + single(f)
	}
	return single(f)
}

func single(f protoreflect.FieldDescriptor) string {
	if m := ours(f); m != nil {
		return fmt.Sprintf("[%s](#%s)", m.Name(), strings.ToLower(string(m.Name())))
	}
	switch f.Kind() { //nolint:exhaustive // the others are called what they are
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Timestamp" {
			return "time"
		}
		return string(f.Message().Name())
	case protoreflect.BytesKind:
		return "base64"
	case protoreflect.Int32Kind:
		return "integer"
	case protoreflect.Int64Kind:
		return "integer, as text"
	}
	return f.Kind().String()
}
