package rules

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestWithClaims(t *testing.T) {
	claim := func(path, project, uid string) *carav1.PathClaim {
		return &carav1.PathClaim{Path: path, Project: project, Uid: uid}
	}
	host := func(name, uid string, paths ...*carav1.PathClaim) *carav1.HostClaim {
		return &carav1.HostClaim{Kind: api.KindProject, Name: name, Uid: uid, Paths: paths}
	}
	mine := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p", Uid: "1"}}
	for name, tt := range map[string]struct {
		claim *carav1.HostClaim
		paths []string
		want  *carav1.HostClaim
		fresh []string
	}{
		"a new host":                  {nil, []string{"/"}, host("p", "1"), []string{"/"}},
		"a path of a new host":        {nil, []string{"/a"}, host("p", "1", claim("/a", "p", "1")), []string{"/a"}},
		"two paths of a new host":     {nil, []string{"/b", "/"}, host("p", "1", claim("/", "p", "1"), claim("/b", "p", "1")), []string{"/b", "/"}},
		"nothing of a new host":       {nil, nil, nil, nil},
		"the same":                    {host("p", "1"), []string{"/"}, host("p", "1"), nil},
		"a project that was replaced": {host("p", "0"), []string{"/"}, host("p", "1"), nil},
		"another path":                {host("p", "1"), []string{"/a"}, host("p", "1", claim("/a", "p", "1")), []string{"/a"}},
		"back to all paths":           {host("p", "1", claim("/a", "p", "1")), []string{"/"}, host("p", "1"), []string{"/"}},
		"released":                    {host("p", "1"), nil, nil, nil},
		"not its own, released":       {host("q", "2"), nil, host("q", "2"), nil},
		"beside another":              {host("q", "2"), []string{"/a"}, host("q", "2", claim("/", "q", "2"), claim("/a", "p", "1")), []string{"/a"}},
		"released beside another":     {host("q", "2", claim("/", "q", "2"), claim("/a", "p", "1")), nil, host("q", "2"), nil},
		"released before another": {
			host("p", "1", claim("/", "p", "1"), claim("/a", "q", "2")), nil, host("q", "2", claim("/a", "q", "2")), nil,
		},
		"one path kept": {
			host("q", "2", claim("/", "q", "2"), claim("/a", "p", "1"), claim("/b", "p", "1")),
			[]string{"/b", "/c"},
			host("q", "2", claim("/", "q", "2"), claim("/b", "p", "1"), claim("/c", "p", "1")),
			[]string{"/c"},
		},
	} {
		before := proto.CloneOf(tt.claim)
		got, fresh := withClaims(tt.claim, mine, tt.paths)
		if diff := cmp.Diff(tt.want, got, protocmp.Transform()) + cmp.Diff(tt.fresh, fresh); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !proto.Equal(before, tt.claim) {
			t.Errorf("%s: the old claim was changed to %v", name, tt.claim)
		}
	}
}

// A server of an older version stores an ObjectRef and reads one.
func TestHostClaimOfAnOlderServer(t *testing.T) {
	stored, err := proto.Marshal(&carav1.ObjectRef{Kind: api.KindProject, Name: "p", Uid: "1"})
	if err != nil {
		t.Fatal(err)
	}
	claim := &carav1.HostClaim{}
	if err := proto.Unmarshal(stored, claim); err != nil {
		t.Fatal(err)
	}
	if got := pathClaims(claim); len(got) != 1 || got[0].GetPath() != "/" || got[0].GetProject() != "p" || got[0].GetUid() != "1" {
		t.Errorf("claims of an older server: %v", got)
	}
	back, err := proto.Marshal(hostClaim([]*carav1.PathClaim{{Path: "/a", Project: "p", Uid: "1"}}))
	if err != nil {
		t.Fatal(err)
	}
	ref := &carav1.ObjectRef{}
	if err := proto.Unmarshal(back, ref); err != nil || ref.GetName() != "p" || ref.GetKind() != api.KindProject {
		t.Errorf("an older server reads %v, %v", ref, err)
	}
}

func TestShareProblem(t *testing.T) {
	others := []*carav1.PathClaim{{Path: "/", Project: "q"}, {Path: "/a", Project: "r"}}
	both := map[string]string{"q": "source/s", "r": "source/s"}
	many := make([]*carav1.PathClaim, maxHostPaths)
	for i := range many {
		many[i] = &carav1.PathClaim{Path: fmt.Sprintf("/%d", i), Project: "q"}
	}
	for name, tt := range map[string]struct {
		paths  []string
		others []*carav1.PathClaim
		owner  string
		owners map[string]string
		want   string // the beginning; empty if there is no problem
	}{
		"nobody else":           {[]string{"/", "/a"}, nil, "user/u", nil, ""},
		"nobody else, no owner": {[]string{"/"}, nil, "", nil, ""},
		"of the same source":    {[]string{"/b"}, others, "source/s", both, ""},
		"the host is taken":     {[]string{"/"}, others, "source/s", both, `ingress host "a.test" belongs to project "q": choose another host`},
		"the path is taken":     {[]string{"/b", "/a"}, others, "source/s", both, `path /a of ingress host "a.test" belongs to project "r": choose another path`},
		"of another source":     {[]string{"/b"}, others, "source/t", both, `ingress host "a.test" belongs to project "q" of source/s, and only projects of the same owner can share a host; the owner of this project is source/t`},
		"of a person":           {[]string{"/b"}, others, "user/u", both, `ingress host "a.test" belongs to project "q" of source/s`},
		"of nobody":             {[]string{"/b"}, others, "", both, `ingress host "a.test" belongs to project "q" of source/s, and only projects of the same owner can share a host; the owner of this project is nobody`},
		"both of nobody":        {[]string{"/b"}, others, "", map[string]string{}, `ingress host "a.test" belongs to project "q" of nobody`},
		"one of another source": {[]string{"/b"}, others, "source/s", map[string]string{"q": "source/s", "r": "source/t"}, `ingress host "a.test" belongs to project "r" of source/t`},
		"the last path":         {[]string{"/b"}, many[1:], "source/s", both, ""},
		"too many paths":        {[]string{"/b"}, many, "source/s", both, `projects would have 201 paths of ingress host "a.test", at most 200 are allowed`},
		"too many of one's own": {make([]string, maxHostPaths+1), nil, "source/s", both, "projects would have 201 paths"},
	} {
		got := shareProblem("a.test", tt.paths, tt.others, tt.owner, tt.owners)
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
