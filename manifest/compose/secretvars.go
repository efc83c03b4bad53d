package compose

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The value of a variable with a Secret is not known while Compose files are read. A marker stands for it, and becomes a variable
// that the agent replaces.

func marker(name string) string { return "\u2063cara:" + name + "\u2063" }

var markers = regexp.MustCompile("\u2063cara:([A-Za-z0-9_]+)\u2063")

// secretVars replaces the markers in the environment and in files, and adds a finding for each service that has one elsewhere.
func (r *Result) secretVars(vars []*carav1.SourceVar) {
	refs := map[string]*carav1.SecretKeyRef{}
	for _, v := range vars {
		if ref := v.GetSecretKeyRef(); ref != nil {
			refs[v.GetName()] = ref
		}
	}
	for _, s := range r.Project.GetSpec().GetServices() {
		for _, e := range s.GetEnv() {
			e.Value, e.SecretVars = unmark(e.GetValue(), refs)
		}
		for _, f := range s.GetFiles() {
			f.Content, f.SecretVars = unmark(f.GetContent(), refs)
		}
	}
	text, _ := prototext.Marshal(r.Project) // a marker is text
	for _, m := range markers.FindAllStringSubmatch(strings.ReplaceAll(string(text), `\u2063`, "\u2063"), 1) {
		r.Findings = append(r.Findings, Finding{
			Severity: Refusal, File: r.file, Line: 1, Column: 1,
			Message: fmt.Sprintf("the variable %s is from a Secret; it can be used in environment and in the content of configs only", m[1]),
		})
	}
}

// unmark returns a text with variables in the place of the markers. Then a dollar sign is doubled everywhere else.
func unmark(text string, refs map[string]*carav1.SecretKeyRef) (string, []*carav1.SecretVar) {
	found := markers.FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		return text, nil
	}
	var vars []*carav1.SecretVar
	seen := map[string]bool{}
	for _, m := range found {
		if ref := refs[m[1]]; ref != nil && !seen[m[1]] {
			seen[m[1]] = true
			vars = append(vars, &carav1.SecretVar{Name: m[1], SecretKeyRef: proto.CloneOf(ref)})
		}
	}
	return markers.ReplaceAllString(strings.ReplaceAll(text, "$", "$$"), "$${$1}"), vars
}
