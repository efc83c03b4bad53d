package sources

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		path             string
		include, exclude []string
		file             string
		want             bool
	}{
		{"", nil, nil, "a.yaml", true},
		{"", nil, nil, "deep/er/a.yml", true},
		{"", nil, nil, "a.json", true},
		{"", nil, nil, "a.YAML", true},
		{"", nil, nil, "a.txt", false},
		{"", nil, nil, ".github/workflows/ci.yaml", false},
		{"", nil, nil, "x/.hidden.yaml", false},
		{"deploy", nil, nil, "deploy/a.yaml", true},
		{"/deploy/", nil, nil, "deploy/a.yaml", true},
		{"deploy", nil, nil, "deployment/a.yaml", false},
		{"deploy", nil, nil, "a.yaml", false},
		{".cara", nil, nil, ".cara/a.yaml", true},
		{"deploy", []string{"*.yaml"}, nil, "deploy/a.yaml", true},
		{"deploy", []string{"*.yaml"}, nil, "deploy/x/a.yaml", false},
		{"", []string{"**/prod/*.yaml"}, nil, "a/b/prod/x.yaml", true},
		{"", []string{"**"}, []string{"**/draft/**"}, "draft/x.yaml", false},
		{"", nil, []string{"draft"}, "draft/x.yaml", true},
	}
	for _, tt := range tests {
		m, err := NewMatch(&carav1.SourceSpec{Path: tt.path, Include: tt.include, Exclude: tt.exclude})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.File(tt.file); got != tt.want {
			t.Errorf("path %q include %v exclude %v: %s: %v", tt.path, tt.include, tt.exclude, tt.file, got)
		}
	}
	for _, bad := range []*carav1.SourceSpec{{Path: "a/../b"}, {Include: []string{"[x"}}, {Exclude: []string{"{a"}}} {
		if _, err := NewMatch(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestBackoff(t *testing.T) {
	tests := []struct {
		e        *Error
		failures int
		want     time.Duration
	}{
		{Retry("", ""), 1, time.Second},
		{Retry("", ""), 2, 2 * time.Second},
		{Retry("", ""), 5, 16 * time.Second},
		{Retry("", ""), 1000, 30 * time.Second},
		{Human("", ""), 1, 30 * time.Second},
		{&Error{RetryAfter: 5 * time.Minute}, 1, 5 * time.Minute},
	}
	for _, tt := range tests {
		if got := backoff(tt.e, tt.failures, 30*time.Second); got != tt.want {
			t.Errorf("%v after %d failures: %s, want %s", tt.e, tt.failures, got, tt.want)
		}
	}
}

func TestSpecHash(t *testing.T) {
	base := &carav1.SourceSpec{Git: &carav1.GitSource{Url: "u"}, Include: []string{"a"}}
	same := []func(*carav1.SourceSpec){
		func(s *carav1.SourceSpec) { s.Interval = "5s" },
		func(s *carav1.SourceSpec) { s.Prune = new(false) },
		func(s *carav1.SourceSpec) { s.Git.SecretRef = "other" },
		func(s *carav1.SourceSpec) { s.Adopt, s.OnDelete, s.Suspend = "Always", "Delete", true },
	}
	other := []func(*carav1.SourceSpec){
		func(s *carav1.SourceSpec) { s.Git.Url = "v" },
		func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Branch: "b"} },
		func(s *carav1.SourceSpec) { s.Git.Ref = &carav1.GitRef{Tag: "b"} },
		func(s *carav1.SourceSpec) { s.Path = "p" },
		func(s *carav1.SourceSpec) { s.Include, s.Exclude = nil, []string{"a"} },
		func(s *carav1.SourceSpec) { s.Include = append(s.Include, "b") },
		func(s *carav1.SourceSpec) { s.MaxProjects = 5 },
	}
	seen := map[string]bool{specHash(base): true}
	for i, change := range same {
		s := proto.CloneOf(base)
		if change(s); specHash(s) != specHash(base) {
			t.Errorf("same %d: another hash", i)
		}
	}
	for i, change := range other {
		s := proto.CloneOf(base)
		change(s)
		if h := specHash(s); seen[h] {
			t.Errorf("other %d: a hash that was seen", i)
		} else {
			seen[h] = true
		}
	}
}
