package validate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// problemsOf returns what is wrong with the ingress rules of an otherwise valid project, a line each.
func problemsOf(rules ...*carav1.Ingress) string {
	p := validProject()
	p.Spec.Ingress = rules
	var lines []string
	for _, e := range validate.Object(p) {
		lines = append(lines, e.GetField()+": "+e.GetMessage())
	}
	return strings.Join(lines, "\n")
}

func rule(name, host, path string) *carav1.Ingress {
	return &carav1.Ingress{Name: name, Host: host, Path: path, Target: &carav1.IngressTarget{Service: "web", Port: 80}}
}

func redirect(path, to string) *carav1.Ingress {
	return &carav1.Ingress{Name: "a", Host: "a.test", Path: path, Redirect: &carav1.IngressRedirect{To: to}}
}

func TestIngressPaths(t *testing.T) {
	for name, tt := range map[string]struct {
		rules []*carav1.Ingress
		want  string // the beginning of the only message; empty if there is none
	}{
		"no path":               {[]*carav1.Ingress{rule("a", "a.test", "")}, ""},
		"all paths":             {[]*carav1.Ingress{rule("a", "a.test", "/")}, ""},
		"two paths of a host":   {[]*carav1.Ingress{rule("a", "a.test", "/"), rule("b", "a.test", "/api")}, ""},
		"one path of two hosts": {[]*carav1.Ingress{rule("a", "a.test", "/api"), rule("b", "b.test", "/api")}, ""},
		"every character":       {[]*carav1.Ingress{rule("a", "a.test", "/A-z._~!$&'()*+,=:@/..x/.well-known/")}, ""},
		"a host twice":          {[]*carav1.Ingress{rule("a", "a.test", ""), rule("b", "A.test", "/")}, `spec.ingress[1].host: host "a.test" appears twice`},
		"a path twice":          {[]*carav1.Ingress{rule("a", "a.test", "/api"), rule("b", "A.test", "/api/")}, `spec.ingress[1].path: path "a.test/api" appears twice: ingress[0] and ingress[1]`},
		"relative":              {[]*carav1.Ingress{rule("a", "a.test", "api")}, `spec.ingress[0].path: is "api"; it must begin with /`},
		"a query":               {[]*carav1.Ingress{rule("a", "a.test", "/a?b")}, `spec.ingress[0].path: is "/a?b"; it must be a path`},
		"an escape":             {[]*carav1.Ingress{rule("a", "a.test", "/a%2fb")}, `spec.ingress[0].path: is "/a%2fb"; it must be a path`},
		"a backslash":           {[]*carav1.Ingress{rule("a", "a.test", `/a\b`)}, `spec.ingress[0].path: is "/a\\b"; it must be a path`},
		"a semicolon":           {[]*carav1.Ingress{rule("a", "a.test", "/a;b")}, `spec.ingress[0].path: is "/a;b"; it must be a path`},
		"not ASCII":             {[]*carav1.Ingress{rule("a", "a.test", "/ä")}, `spec.ingress[0].path: is "/ä"; it must be a path`},
		"an empty segment":      {[]*carav1.Ingress{rule("a", "a.test", "/a//b")}, `spec.ingress[0].path: is "/a//b"; it must have no empty segment`},
		"an empty last segment": {[]*carav1.Ingress{rule("a", "a.test", "/a//")}, `spec.ingress[0].path: is "/a//"; it must have no empty segment`},
		"slashes":               {[]*carav1.Ingress{rule("a", "a.test", "//")}, `spec.ingress[0].path: is "//"; it must have no empty segment`},
		"up":                    {[]*carav1.Ingress{rule("a", "a.test", "/a/../b")}, `spec.ingress[0].path: is "/a/../b"; it must have no empty segment and no segment . or ..`},
		"long":                  {[]*carav1.Ingress{rule("a", "a.test", "/"+strings.Repeat("a", 512))}, "spec.ingress[0].path: has 513 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := problemsOf(tt.rules...); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestIngressRedirects(t *testing.T) {
	both, neither, code := redirect("", "/x"), redirect("", "/x"), redirect("", "/x")
	both.Target = &carav1.IngressTarget{Service: "web", Port: 80}
	neither.Redirect = nil
	code.Redirect.Code = 200
	for name, tt := range map[string]struct {
		rule *carav1.Ingress
		want string // the beginning of the only message; empty if there is none
	}{
		"another host":        {redirect("", "https://www.example.com"), ""},
		"port, path, query":   {redirect("/a", "http://www.example.com:8080/a?b=c#d"), ""},
		"an address":          {redirect("", "http://[2001:db8::1]/"), ""},
		"a path":              {redirect("/old", "/old/new"), ""},
		"an escape":           {redirect("/old", "/%2F/new"), ""},
		"target and redirect": {both, "spec.ingress[0]: has both target and redirect; keep one of them"},
		"nothing":             {neither, "spec.ingress[0].target: is required; name the service"},
		"code":                {code, "spec.ingress[0].redirect.code: is 200; it must be 301, 302, 303, 307 or 308"},
		"no location":         {redirect("", ""), "spec.ingress[0].redirect.to: is required"},
		"itself":              {redirect("/old", "/old/?a=b"), "spec.ingress[0].redirect.to: is the path of this rule"},
		"itself, escaped":     {redirect("/old", "/%6fld"), "spec.ingress[0].redirect.to: is the path of this rule"},
		"a header":            {redirect("", "/x\r\nSet-Cookie: a=b"), "spec.ingress[0].redirect.to: has a character that a URL cannot contain"},
		"a space":             {redirect("", "/x y"), "spec.ingress[0].redirect.to: has a character that a URL cannot contain"},
		"not ASCII":           {redirect("", "https://bücher.example/"), "spec.ingress[0].redirect.to: has a character that a URL cannot contain"},
		"a backslash":         {redirect("", `/\evil.example`), "spec.ingress[0].redirect.to: has a character that a URL cannot contain"},
		"another scheme":      {redirect("", "javascript:alert(1)"), "spec.ingress[0].redirect.to: must begin with http:// or https://"},
		"no scheme":           {redirect("", "www.example.com"), "spec.ingress[0].redirect.to: must begin with http:// or https://"},
		"two slashes":         {redirect("/a", "//evil.example/"), "spec.ingress[0].redirect.to: begins with //"},
		"no host":             {redirect("", "https:///x"), "spec.ingress[0].redirect.to: must begin with http:// or https://"},
		"a password":          {redirect("", "https://me:secret@example.com/"), "spec.ingress[0].redirect.to: contains a user name or a password"},
		"a bad escape":        {redirect("", "/%zz"), "spec.ingress[0].redirect.to: is no URL"},
		"long":                {redirect("", "/"+strings.Repeat("a", 2048)), "spec.ingress[0].redirect.to: has 2049 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			got := problemsOf(tt.rule)
			if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") || strings.Contains(got, "\n") || strings.Contains(got, "secret") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestIngressAccessLists(t *testing.T) {
	for entry, want := range map[string]string{ // the beginning of the only message; empty if there is none
		"10.0.0.0/8":            "",
		"0.0.0.0/0":             "",
		"192.0.2.7/32":          "",
		"2001:db8::/32":         "",
		"10.1.2.3/8":            "is 10.1.2.3/8, which has bits beyond its length; write 10.0.0.0/8, or a single address as 10.1.2.3/32",
		"10.1.2.3":              `is "10.1.2.3"; it must be a network`,
		"10.0.0.0/33":           `is "10.0.0.0/33"; it must be a network`,
		"":                      `is ""; it must be a network`,
		"example.com":           `is "example.com"; it must be a network`,
		"fe80::%eth0/64":        `is "fe80::%eth0/64"; it must be a network`,
		"::ffff:10.0.0.0/104":   "is ::ffff:10.0.0.0/104; write IPv4 networks without ::ffff:",
		strings.Repeat("1", 44): "has 44 characters, at most 43 are allowed",
	} {
		r := rule("a", "a.test", "")
		r.Access = &carav1.IngressAccess{Allow: []string{"127.0.0.0/8", entry}}
		if want != "" {
			want = "spec.ingress[0].access.allow[1]: " + want
		}
		if got := problemsOf(r); !strings.HasPrefix(got, want) || (got == "") != (want == "") || strings.Contains(got, "\n") {
			t.Errorf("%q: got %s, want %s", entry, got, want)
		}
	}
	many := rule("a", "a.test", "")
	many.Access = &carav1.IngressAccess{Allow: slices.Repeat([]string{"10.0.0.0/8"}, 101)}
	if got := problemsOf(many); !strings.HasPrefix(got, "spec.ingress[0].access.allow: has 101 entries, at most 100") {
		t.Errorf("101 networks: %s", got)
	}
}
