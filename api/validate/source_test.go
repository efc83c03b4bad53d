package validate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestASourcesPatternsAreNamedInTheComplaint(t *testing.T) {
	src := &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "s"},
		Spec: &carav1.SourceSpec{
			Dir:   &carav1.DirSource{Path: "/d"},
			Allow: &carav1.SourceAllow{Names: []string{"ok", "a b"}, Hosts: []string{"http://x"}, Secrets: []string{"a.b"}},
		},
	}
	var fields []string
	for _, f := range Object(src) {
		fields = append(fields, f.GetField())
	}
	want := []string{"spec.allow.names[1]", "spec.allow.hosts[0]", "spec.allow.secrets[0]"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
}

func TestAWholeTopLevelDomainIsNoHost(t *testing.T) {
	for host, bad := range map[string]bool{"com.": true, "COM.": true, "com": false, "www.example.com.": false} {
		e := &fieldErrors{seen: map[string]bool{}}
		projectErrors{e}.host("h", host)
		if (len(e.list) > 0) != bad {
			t.Errorf("host %q: %v", host, e.list)
		}
	}
}
