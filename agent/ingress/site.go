package ingress

import (
	"cmp"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// site holds the routes of one host, the longest path first. It is immutable.
type site []*rule

// rule is a route with its access list.
type rule struct {
	*carav1.Route
	allow  networks.List
	moved  time.Time // when this agent learned that the project moves, came to another node or left one; zero if it has not
	served *usage    // when a service last got a request; the rules of one path share it
}

func newSite(routes []*carav1.Route) site {
	s := make(site, 0, len(routes))
	for _, r := range routes {
		s = append(s, &rule{Route: r, allow: networks.Parse(r.Allow), served: &usage{}})
	}
	slices.SortStableFunc(s, func(a, b *rule) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	return s
}

// since returns the site with what is known about the rules that it replaces. The site must be new.
func (s site) since(old site, now time.Time) site {
	for _, r := range s {
		i := slices.IndexFunc(old, func(o *rule) bool { return o.Path == r.Path && o.Project == r.Project })
		known := i >= 0
		if known {
			r.served, r.moved = old[i].served, old[i].moved
		}
		if known && r.Node != old[i].Node || r.Moving && !(known && old[i].Moving) {
			r.moved = now
		}
	}
	return s
}

// save adds the site to a stored table. An agent of an older version reads only upserts, and serves them for all paths.
func (s site) save(host string, all *carav1.Routes) {
	if r := s[0].Route; len(s) == 1 && api.PlainRoute(r) {
		all.Upserts = append(all.Upserts, r)
		return
	}
	h := &carav1.HostRoutes{Host: host}
	for _, r := range s {
		h.Routes = append(h.Routes, r.Route)
	}
	if slices.ContainsFunc(s, func(r *rule) bool { return len(r.Features) > 0 }) {
		all.FeatureHosts = append(all.FeatureHosts, h)
		return
	}
	all.Hosts = append(all.Hosts, h)
}

// features are what this version knows, of what a route may need.
var features = []string{api.FeatureBasicAuth, api.FeatureH2C, api.FeatureTLS} //nolint:gochecknoglobals // never changes

// servable reports whether this version knows all features that the routes of a host need. Without one of them, a client might
// reach what it must not.
func servable(routes []*carav1.Route) bool {
	for _, r := range routes {
		for _, feature := range r.GetFeatures() {
			if !slices.Contains(features, feature) {
				return false
			}
		}
	}
	return len(routes) > 0
}

// public reports whether any or all routes of a host are public.
func (s site) public() (some, all bool) {
	all = true
	for _, r := range s {
		if r.Scope == api.ScopePublic {
			some = true
		} else {
			all = false
		}
	}
	return some, all
}

// route returns the rule of a request, or nil if no route has its path.
//
// Services read some paths in different ways: one takes `/x/../admin`, `/x;y/../admin`, `//admin` or `/admin%2Fusers` as a page
// below `/admin`, another does not. If the routes differ between two readings, ok is false: otherwise a client could reach
// a part of a service that another route leads to on purpose.
func (s site) route(u *url.URL) (route *rule, ok bool) {
	if len(s) == 1 && s[0].Path == "" {
		return s[0], true
	}
	if plain(u) {
		return s.match(u.Path), true
	}
	route = s.match(literal(u))
	return route, route == s.match(lenient(u.Path))
}

// match returns the route with the longest path that is a prefix of p by whole segments.
func (s site) match(p string) *rule {
	for _, r := range s {
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(r.Path, "/")); ok && (rest == "" || rest[0] == '/' || r.Path == "") {
			return r
		}
	}
	return nil
}

// plain reports whether a path has only one reading.
func plain(u *url.URL) bool {
	return u.RawPath == "" && !strings.ContainsAny(u.Path, `\;`) && !strings.Contains(u.Path, "//") && !strings.Contains(u.Path, "/.")
}

// literal returns a path in the reading in which an escaped slash is a character of a segment, and segments such as `..` have
// no meaning. Escaped slashes stay escaped; routes never contain them.
func literal(u *url.URL) string {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, escaped := range segments {
		if segment, err := url.PathUnescape(escaped); err == nil && !strings.Contains(segment, "/") {
			segments[i] = segment
		}
	}
	return strings.Join(segments, "/")
}

// lenient returns a decoded path in the reading that gives meaning to the most characters: a backslash is a slash, a semicolon
// begins a parameter of a segment, and `.` and `..` and empty segments are resolved.
func lenient(decoded string) string {
	segments := strings.Split(strings.ReplaceAll(decoded, `\`, "/"), "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return path.Clean("/" + strings.Join(segments, "/"))
}
