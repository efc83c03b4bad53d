// Command reference writes docs/manifest-reference.md: it reads the contract, proto/, as a file descriptor set with its
// comments from standard input, and prints the page. With a directory as its argument it writes the JSON Schemas of the
// manifests there, too. It stands outside the straight line.
//
// What it writes depends on its input alone, so that a page that is not current shows in a diff.
package main

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

//go:embed intro.md
var intro string

// manifests are the kinds that people write, in the order of the page.
func manifests() []protoreflect.FullName {
	return []protoreflect.FullName{"cara.v1.Project", "cara.v1.Source", "cara.v1.Secret", "cara.v1.Node"}
}

func main() {
	if err := run(os.Stdin, os.Stdout, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, schemaDirs ...string) error {
	data, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read descriptors: %w", err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return fmt.Errorf("read descriptors: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return fmt.Errorf("read descriptors: %w", err)
	}
	w := bufio.NewWriter(out)
	p := &page{w: w, seen: map[protoreflect.FullName]bool{}}
	fmt.Fprint(w, intro)
	var kinds []protoreflect.MessageDescriptor
	for _, name := range manifests() {
		d, err := files.FindDescriptorByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		m, ok := d.(protoreflect.MessageDescriptor)
		if !ok || comment(m) == "" {
			return fmt.Errorf("%s has no comment: build the descriptors with their source", name)
		}
		p.kind(m)
		kinds = append(kinds, m)
	}
	for _, dir := range schemaDirs {
		p.err = errors.Join(p.err, writeSchemas(kinds, dir))
	}
	return errors.Join(p.err, w.Flush())
}
