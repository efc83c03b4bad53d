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

// choices are the allowed values of a field, without the zero value: that stands for a field that is not set.
func choices[T comparable](in []T) (out []any) {
	var unset T
	for _, v := range in {
		if v != unset {
			out = append(out, v)
		}
	}
	return out
}

func anyOf(values []any) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprintf("`%v`", v)
	}
	return strings.Join(words, " or ")
}

func intRules(i *validate.Int32Rules) string {
	if in := choices(i.GetIn()); len(in) > 0 {
		return anyOf(in)
	}
	return fmt.Sprintf("%d to %d", i.GetGte(), i.GetLte())
}

func stringRules(s *validate.StringRules) []string {
	var out []string
	if s.HasConst() {
		out = append(out, "`"+s.GetConst()+"`")
	}
	if in := choices(s.GetIn()); len(in) > 0 {
		out = append(out, anyOf(in))
	}
	if s.HasMinLen() {
		out = append(out, fmt.Sprintf("at least %d characters", s.GetMinLen()))
	}
	if s.HasMaxLen() {
		out = append(out, fmt.Sprintf("at most %d characters", s.GetMaxLen()))
	}
	return out
}
