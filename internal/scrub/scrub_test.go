package scrub_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/scrub"
)

func list(values ...string) *scrub.List {
	all := make([][]byte, len(values))
	for i, v := range values {
		all[i] = []byte(v)
	}
	return scrub.New(all, []string{"postgres"})
}

func TestText(t *testing.T) {
	const secret = `p/ss "w+rd" <1>`
	b64 := base64.StdEncoding.EncodeToString
	block := strings.Repeat("0123456789abcdef", 4)
	tests := map[string]struct {
		values     []string
		text, want string
	}{
		"nothing":                      {nil, "a text", "a text"},
		"whole":                        {[]string{"hunter2hunter2"}, "got hunter2hunter2: no", "got <redacted>: no"},
		"inside of a word":             {[]string{"hunter2hunter2"}, "xhunter2hunter2x", "x<redacted>x"},
		"twice and side by side":       {[]string{"hunter2hunter2"}, "hunter2hunter2hunter2hunter2", "<redacted>"},
		"overlapping itself":           {[]string{"abcabcabca"}, "abcabcabcabca", "<redacted>"},
		"two values that overlap":      {[]string{"abcdefgh", "efghijkl"}, "abcdefghijkl", "<redacted>"},
		"a value within another":       {[]string{"abcdefgh", "xxabcdefghxx"}, "xxabcdefghxx", "<redacted>"},
		"a short one as a word":        {[]string{"4815"}, "pin=4815, not 48151", "pin=<redacted>, not 48151"},
		"too short":                    {[]string{"1", "abc"}, "exit 1 of abc", "exit 1 of abc"},
		"white space around it":        {[]string{" hunter2hunter2\n"}, "got hunter2hunter2.", "got <redacted>."},
		"only white space":             {[]string{"        \n"}, "a        b", "a        b"},
		"a name of the manifest":       {[]string{"postgres"}, "pull image postgres:15", "pull image postgres:15"},
		"in a URL's query":             {[]string{secret}, "?p=" + url.QueryEscape(secret), "?p=<redacted>"},
		"in a URL's path":              {[]string{secret}, "/" + url.PathEscape(secret), "/<redacted>"},
		"in a URL with small letters":  {[]string{"a/b/c/d/e/f"}, "/a%2fb%2fc%2fd%2fe%2ff", "/<redacted>"},
		"quoted":                       {[]string{secret}, "invalid " + strconv.Quote(secret), `invalid "<redacted>"`},
		"in JSON":                      {[]string{secret}, `{"a":"p/ss \"w+rd\" \u003c1\u003e"}`, `{"a":"<redacted>"}`},
		"in base64":                    {[]string{secret}, b64([]byte(secret)), "<redacted>"},
		"in hexadecimal":               {[]string{"hunter2hunter2"}, "68756e7465723268756e74657232", "<redacted>"},
		"cut at the end":               {[]string{"hunter2hunter2"}, "it printed hunter2hu", "it printed <redacted>"},
		"cut with dots":                {[]string{"hunter2hunter2"}, "hunter2hu... (8 KiB)", "<redacted>... (8 KiB)"},
		"a line of several":            {[]string{"-----BEGIN KEY-----\nfirstline1\n  secondline\nx\n"}, "at secondline of -----BEGIN KEY-----, x", "at <redacted> of -----BEGIN KEY-----, x"},
		"a part of a long value":       {[]string{strings.Repeat("x", 500) + block + strings.Repeat("y", 600)}, "0 " + block[3:60] + " 1", "0 <redacted> 1"},
		"no value like it":             {[]string{strings.Repeat("x", 500) + block + strings.Repeat("y", 600)}, "0 " + block[:20] + " 1", "0 " + block[:20] + " 1"},
		"a long value, line by line":   {[]string{strings.Repeat(block+"\n", 40) + "the-last-line"}, "the-last-line", "<redacted>"},
		"bytes that are not UTF-8":     {[]string{"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"}, "got \xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8!", "got <redacted>!"},
		"an empty value and empty key": {[]string{"", "\n\n\n\n\n"}, "a\n\n\n\n\nb", "a\n\n\n\n\nb"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := list(tt.values...).Text(tt.text); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestBase64AtAnyAlignment: the password in base64(user:password) is not base64(password).
func TestBase64AtAnyAlignment(t *testing.T) {
	const secret = "hunter2hunter2"
	for before := range 6 {
		for behind := range 3 {
			whole := strings.Repeat("u", before) + secret + strings.Repeat("v", behind)
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
				text := list(secret).Text("Basic " + e.EncodeToString([]byte(whole)))
				rest := strings.ReplaceAll(strings.TrimPrefix(text, "Basic "), scrub.Mark, "")
				if !strings.Contains(text, scrub.Mark) || len(rest) > before*4/3+behind*4/3+6 {
					t.Errorf("%d before, %d behind: %s", before, behind, text)
				}
			}
		}
	}
}

func TestError(t *testing.T) {
	err := fmt.Errorf("start container: hunter2hunter2: %w", io.ErrUnexpectedEOF)
	got := list("hunter2hunter2").Error(err)
	if got.Error() != "start container: <redacted>: unexpected EOF" || !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", got)
	}
	if same := list("other-value").Error(err); !errors.Is(same, err) || same.Error() != err.Error() {
		t.Errorf("an error without a value became %v", same)
	}
	if (*scrub.List)(nil).Error(nil) != nil || (*scrub.List)(nil).Text("a") != "a" {
		t.Error("no list takes something out")
	}
}

func FuzzText(f *testing.F) {
	f.Add("hunter2hunter2", "a", "b")
	f.Add(strings.Repeat("0123456789abcdef", 100), "x", "")
	f.Fuzz(func(t *testing.T, value, before, behind string) {
		trimmed := strings.TrimSpace(value)
		if len(trimmed) < 8 || strings.Contains(scrub.Mark, trimmed) {
			return
		}
		got := list(value).Text(before + trimmed + behind)
		if strings.Contains(got, trimmed) && !strings.Contains(trimmed, "<") && !strings.Contains(trimmed, ">") && trimmed != "postgres" {
			t.Errorf("%q is in %q", trimmed, got)
		}
	})
}
