package kind

import (
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestClaimedHost(t *testing.T) {
	for name, tt := range map[string]struct{ rules, claimed, host, want string }{
		"full":                               {"a.test", "a.test", "a.test", "a.test"},
		"in capitals":                        {"A.test.", "a.test", "A.test.", "a.test"},
		"not claimed":                        {"a.test", "", "a.test", ""},
		"short":                              {"web", "web.dev.test", "web", "web.dev.test"},
		"short, without a domain":            {"web", "web", "web", "web"},
		"short, and a longer one":            {"web web-2", "web-2.dev.test web.dev.test", "web", "web.dev.test"},
		"short, not claimed":                 {"web", "api.dev.test", "web", ""},
		"short, beside a full one":           {"web web.a.test", "web.a.test web.dev.test", "web", "web.dev.test"},
		"short, and in full under a path":    {"web web.dev.test", "web.dev.test", "web", "web.dev.test"},
		"a full one that is not claimed":     {"web.a.test", "web.b.test", "web.a.test", ""},
		"a full one that begins like others": {"a.test", "a.test.example", "a.test", ""},
	} {
		p := &carav1.Project{Spec: &carav1.ProjectSpec{}, Status: &carav1.ProjectStatus{Hosts: strings.Fields(tt.claimed)}}
		for host := range strings.FieldsSeq(tt.rules) {
			p.Spec.Ingress = append(p.Spec.Ingress, &carav1.Ingress{Host: host})
		}
		if got := claimedHost(p, tt.host); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	to := func(service string) *carav1.IngressTarget { return &carav1.IngressTarget{Service: service, Port: 80} }
	project := func(name, node string, rules ...*carav1.Ingress) *carav1.Project {
		return &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: name, Owner: "source/" + name}, Spec: &carav1.ProjectSpec{Ingress: rules},
			Status: &carav1.ProjectStatus{Hosts: []string{"a.test", "web.dev.test"}, NodeRef: node, Phase: api.PhaseRunning},
		}
	}
	projects := []*carav1.Project{
		project("shop", "n1", &carav1.Ingress{Host: "web", Target: to("web")},
			&carav1.Ingress{Host: "a.test", Path: "/old/", Redirect: &carav1.IngressRedirect{To: "/new", Code: 301}}),
		project("wiki", "n2", &carav1.Ingress{Host: "a.test", Target: to("wiki"), Access: &carav1.IngressAccess{Allow: []string{"10.0.0.0/8"}}},
			&carav1.Ingress{Host: "c.test", Target: to("wiki")}),
	}
	for only, want := range map[string]string{
		"": "a.test|/|wiki:80|Internal|-|10.0.0.0/8|wiki|Running|n2|source/wiki a.test/old|/old|301 /new|Internal|-|all|shop|Running|n1|source/shop " +
			"web.dev.test|/|web:80|Internal|-|all|shop|Running|n1|source/shop",
		"wiki": "a.test|/|wiki:80|Internal|-|10.0.0.0/8|wiki|Running|n2|source/wiki",
		"none": "",
	} {
		var got []string
		for _, r := range Routes(projects, only) {
			row := []string{r.GetMetadata().GetName()}
			for _, c := range routeRow(r, time.Now())[1:] {
				row = append(row, c.Text)
			}
			got = append(got, strings.Join(row, "|"))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("routes of %q:\n%s\nwant\n%s", only, text, want)
		}
	}
}
