package main

import (
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rulesOf are a field's constraints in words, as protovalidate has them in the contract.
func rulesOf(f protoreflect.FieldDescriptor) []string {
	r := constraints(f)
	var out []string
	if r.GetRequired() {
		out = append(out, "**required**")
	}
	if s := r.GetString(); s != nil {
		out = append(out, stringRules(s)...)
	}
	if b := r.GetBytes(); b.HasMaxLen() {
		out = append(out, fmt.Sprintf("at most %d bytes", b.GetMaxLen()))
	}
	if i := r.GetInt32(); i != nil {
		out = append(out, intRules(i))
	}
	if l := r.GetRepeated(); l != nil {
		if l.HasMinItems() {
			out = append(out, fmt.Sprintf("at least %d", l.GetMinItems()))
		}
		if l.HasMaxItems() {
			out = append(out, fmt.Sprintf("at most %d", l.GetMaxItems()))
		}
	}
	if m := r.GetMap(); m.HasMaxPairs() {
		out = append(out, fmt.Sprintf("at most %d", m.GetMaxPairs()))
	}
	return out
}

// constraints are what protovalidate has for a field; nil if there are none.
func constraints(f protoreflect.FieldDescriptor) *validate.FieldRules {
	r, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	return r
}

func intRules(i *validate.Int32Rules) string {
	var choices []string
	for _, n := range i.GetIn() {
		if n != 0 { // stands for a field that is not set
			choices = append(choices, fmt.Sprintf("`%d`", n))
		}
	}
	if len(choices) > 0 {
		return strings.Join(choices, " or ")
	}
	return fmt.Sprintf("%d to %d", i.GetGte(), i.GetLte())
}

func stringRules(s *validate.StringRules) []string {
	var out []string
	if s.HasConst() {
		out = append(out, "`"+s.GetConst()+"`")
	}
	var words []string
	for _, w := range s.GetIn() {
		if w != "" {
			words = append(words, "`"+w+"`")
		}
	}
	if len(words) > 0 {
		out = append(out, strings.Join(words, " or "))
	}
	if s.HasMinLen() {
		out = append(out, fmt.Sprintf("at least %d characters", s.GetMinLen()))
	}
	if s.HasMaxLen() {
		out = append(out, fmt.Sprintf("at most %d characters", s.GetMaxLen()))
	}
	return out
}
