package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestDefaultOf(t *testing.T) {
	tests := map[string]string{
		"Interval between checks, `30s` by default.":          "30s",
		"RestartPolicy is `Always` (the default), or `Never`": "Always",
		"Adopt says `Never`, `IfUnowned` (default) or more":   "IfUnowned",
		"Prune deletes; true by default.":                     "true",
		"PruneLimit, in percent; 30 by default. A prune":      "30",
		"killed: `10s` is the default.":                       "10s",
		"TimeZone of cron. The default is `UTC`.":             "UTC",
		"Name of the thing.":                                  "",
		"Path of `/` or so. Nothing by default.":              "",
	}
	for text, want := range tests {
		if got := defaultOf(text); got != want {
			t.Errorf("defaultOf(%q) is %q, want %q", text, got, want)
		}
	}
}

// Descriptors without comments, as generated Go has them, make no page.
func TestCommentsAreRequired(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	add := func(fd *descriptorpb.FileDescriptorProto) { set.File = append(set.File, fd) }
	for _, m := range []proto.Message{&carav1.Project{}} {
		file := m.ProtoReflect().Descriptor().ParentFile()
		for i := range file.Imports().Len() {
			if imported := file.Imports().Get(i); !seen[imported.Path()] {
				seen[imported.Path()] = true
				add(protodesc.ToFileDescriptorProto(imported.FileDescriptor))
			}
		}
		add(protodesc.ToFileDescriptorProto(file))
	}
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(bytes.NewReader(data), &out); err == nil {
		t.Error("a page without comments is made")
	}
	if err := run(strings.NewReader("nonsense"), &out); err == nil {
		t.Error("nonsense is read")
	}
}

// The page in the tree is what the contract says.
func TestPageIsCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("buf takes minutes to build where it is not in the cache")
	}
	cmd := exec.CommandContext(t.Context(), "hack/reference", "check")
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
