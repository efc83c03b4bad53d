package syntax

import (
	"strconv"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"TAG": "1.2", "EMPTY": "", "DOLLAR": "$TAG${TAG}"}
	lookup := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	for text, want := range map[string]string{
		"":                 "",
		"plain":            "plain",
		"nginx:${TAG}":     "nginx:1.2",
		"${TAG}${TAG}":     "1.21.2",
		"$TAG $ $(x) 5$":   "$TAG $ $(x) 5$",
		"$${TAG} $$$$":     "${TAG} $$",
		"$$$${TAG}":        "$${TAG}",
		"$$${TAG}":         "$1.2",
		"${NONE:-a b}":     "a b",
		"${EMPTY:-x}":      "x",
		"${TAG:-x}":        "1.2",
		"${EMPTY}":         "",
		"${NONE:-}":        "",
		"${DOLLAR}":        "$TAG${TAG}", // a value is never expanded
		"${NONE":           "0 ${: begins with ${",
		"a ${NO-NE}":       "2 ${: \"${NO-NE}\" is not a variable",
		"${}":              "0 ${: \"${}\" is not",
		"é ${TAG} ${NONE}": "10 ${NONE: the variable NONE is not defined",
		"${1A}":            "0 ${: ",
		"${NONE:-${TAG}}":  "0 ${NONE: the default of the variable NONE contains a variable",
	} {
		got, err := Expand(text, lookup)
		if err != nil {
			got = strings.Join([]string{strconv.Itoa(err.Offset), err.Token + ": " + err.Message}, " ")
			if !strings.HasPrefix(got, want) {
				t.Errorf("%q: error %q, want %q", text, got, want)
			}
			continue
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestExpandSecrets(t *testing.T) {
	vars := []*carav1.SecretVar{{Name: "P", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "password"}}}
	got := ExpandSecrets("a$$b ${P} ${P:-x}", vars, map[string][]byte{"db/password": []byte("${P}$$")})
	if want := "a$b ${P}$$ ${P}$$"; got != want {
		t.Errorf("got %q, want %q: what a Secret contains is never expanded", got, want)
	}
	if got := ExpandSecrets("$$ ${P}", nil, nil); got != "$$ ${P}" {
		t.Errorf("got %q: without variables a dollar sign has no meaning", got)
	}
}

// FuzzExpand: no text panics, and escaped text comes back.
func FuzzExpand(f *testing.F) {
	f.Add("${A:-b}$$ $")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = Expand(text, func(string) (string, bool) { return "v", true })
		if got, err := Expand(strings.ReplaceAll(text, "$", "$$"), func(string) (string, bool) { return "", false }); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	})
}
