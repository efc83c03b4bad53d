package validate

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// targets returns the paths in the container of the files that one entry of `files` creates.
func targets(f *carav1.File) []string {
	if len(f.GetEntries()) == 0 {
		return []string{f.GetPath()}
	}
	var all []string
	for _, e := range f.GetEntries() {
		all = append(all, api.EntryPath(f, e))
	}
	return all
}

// from validates where the files of a service come from.
func (e serviceErrors) from(at string, s *carav1.Service) {
	files, bytes := 0, int64(0)
	for i, f := range s.GetFiles() {
		field := api.Element(at+".files", i)
		if bad := fromProblem(f.GetFrom()); bad != "" {
			e.add(field+".from", "%q %s; write a path relative to the manifest, such as ./nginx.conf", text.Short(f.GetFrom()), bad)
		}
		if f.GetFrom() == "" && len(f.GetEntries()) > 0 {
			e.add(field+".entries", "belongs to from; set from, and leave entries to Cara")
		}
		e.entries(field, f)
		for _, entry := range f.GetEntries() {
			files, bytes = files+1, bytes+int64(entry.GetSize())
		}
	}
	if files > api.MaxServiceFiles || bytes > api.MaxServiceFileBytes {
		e.add(at+".files", "from names %d files with %d KiB; a service may have %d files with %d KiB: put more into the image or a volume",
			files, (bytes+1023)>>10, api.MaxServiceFiles, api.MaxServiceFileBytes>>10)
	}
}

func (e serviceErrors) entries(field string, f *carav1.File) {
	seen := map[string]bool{}
	for j, entry := range f.GetEntries() {
		p := entry.GetPath()
		switch {
		case seen[p]:
			e.add(api.Element(field+".entries", j)+".path", "%q is there twice", text.Short(p))
		case p == "" && len(f.GetEntries()) > 1, p != "" && (path.Clean("/"+p) != "/"+p || pathProblem(p) != ""):
			e.add(api.Element(field+".entries", j)+".path", "%q is not the path of a file in a directory", text.Short(p))
		case entry.GetDigest() == "":
			e.add(api.Element(field+".entries", j)+".digest", "is required")
		}
		seen[p] = true
	}
}

// fromProblem returns what is wrong with a path relative to a manifest, or "".
func fromProblem(from string) string {
	if path.IsAbs(from) {
		return "is absolute"
	}
	return pathProblem(from)
}

func pathProblem(p string) string {
	switch {
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "has control characters"
	case strings.Contains(p, `\`):
		return "has a backslash"
	}
	return ""
}

// secretVars validates the variables of Secrets in a text.
func (e serviceErrors) secretVars(at, textField, s string, vars []*carav1.SecretVar) {
	if len(vars) == 0 {
		return
	}
	seen := map[string]int{}
	for i, v := range vars {
		field := api.Element(at, i)
		if !syntax.IsVariable(v.GetName()) {
			e.add(field+".name", "%q is not the name of a variable; use letters, digits and _", text.Short(v.GetName()))
		}
		e.unique(seen, v.GetName(), "variable", at, i, ".name")
		e.secretKey(field+".secretKeyRef", v.GetSecretKeyRef())
	}
	_, err := syntax.Expand(s, func(name string) (string, bool) { _, ok := seen[name]; return "", ok })
	if err != nil {
		e.add(textField, "%s; secretVars defines %s, and $$ is a dollar sign", err.Message, strings.Join(sortedKeys(seen), ", "))
	}
}
