package oidc

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api"
)

const (
	// maxGroups and maxText limit what a token says about a person: the number of groups, and the bytes of a group or a name.
	maxGroups = 2000
	maxText   = 256
	// maxGrants limits the role map.
	maxGrants = 1000
)

// Grant gives the members of a group a role. A deployer with a Prefix may only change objects whose names begin with it.
type Grant struct {
	Group  string
	Role   api.Role
	Prefix string
}

// ParseGrant parses `group=role` or `group=role:prefix`. The last `=` counts, because groups of LDAP contain it.
func ParseGrant(text string) (Grant, error) {
	i := strings.LastIndexByte(text, '=')
	if i <= 0 {
		return Grant{}, fmt.Errorf("%q: want GROUP=ROLE or GROUP=deployer:PREFIX, such as developers=deployer:pr-", text)
	}
	role, prefix, limited := strings.Cut(text[i+1:], ":")
	g := Grant{Group: text[:i], Role: api.Role(role), Prefix: prefix}
	switch {
	case !slices.Contains([]api.Role{api.RoleAdmin, api.RoleDeployer, api.RoleViewer}, g.Role):
		return Grant{}, fmt.Errorf("%q: unknown role %q; the roles are admin, deployer and viewer", text, role)
	case limited && g.Role != api.RoleDeployer:
		return Grant{}, fmt.Errorf("%q: a prefix limits deployers; the role is %s", text, role)
	case limited && len(validation.IsDNS1123Label(prefix+"x")) > 0:
		return Grant{}, fmt.Errorf("%q: %q cannot begin a name: use lower-case letters, digits and -", text, prefix)
	case len(g.Group) > maxText:
		return Grant{}, fmt.Errorf("the group %.20q... has %d bytes; the limit is %d", g.Group, len(g.Group), maxText)
	}
	return g, nil
}

// Rights are what a person may do.
type Rights struct {
	Role api.Role
	// NamePrefixes limit a deployer; empty means no limit.
	NamePrefixes []string
}

// Decide returns the rights that groups give: the highest role, and for a deployer all prefixes, or no limit if one of the
// groups has none. ok is false if no group is in the map.
func Decide(grants []Grant, groups []string) (r Rights, ok bool) {
	rank := map[api.Role]int{api.RoleViewer: 1, api.RoleDeployer: 2, api.RoleAdmin: 3}
	unlimited := false
	for _, g := range grants {
		if !slices.Contains(groups, g.Group) || rank[g.Role] < rank[r.Role] {
			continue
		}
		r.Role = g.Role
		if g.Role == api.RoleDeployer && g.Prefix != "" {
			r.NamePrefixes = append(r.NamePrefixes, g.Prefix)
		}
		unlimited = unlimited || g.Role == api.RoleDeployer && g.Prefix == ""
	}
	if r.Role != api.RoleDeployer || unlimited {
		r.NamePrefixes = nil
	}
	slices.Sort(r.NamePrefixes)
	r.NamePrefixes = slices.Compact(r.NamePrefixes)
	return r, r.Role != ""
}

// Person is who has logged in.
type Person struct {
	// Name is for the audit log and events. It contains a `@`, so it is never the name of a token.
	Name string
	// Subject identifies the person at the provider, also after a change of the name.
	Subject string
	// Groups are those that the role map names.
	Groups []string
}

// PersonOf returns the person that the claims of an ID token describe.
func PersonOf(issuer, groupsClaim string, grants []Grant, claims map[string]any) (Person, error) {
	p := Person{Subject: plain(claims["sub"])}
	if p.Subject == "" {
		return p, api.Unauthenticated("the OpenID provider has sent an ID token without a usable subject: check the client's claims there")
	}
	p.Name = name(issuer, claims)
	groups, err := groupsOf(groupsClaim, claims)
	if err != nil {
		return p, err
	}
	for _, g := range grants {
		if slices.Contains(groups, g.Group) && !slices.Contains(p.Groups, g.Group) {
			p.Groups = append(p.Groups, g.Group)
		}
	}
	if len(p.Groups) == 0 {
		return p, api.Forbidden("%s has no role here: the claim %q of the ID token has none of the groups of --oidc-role-map; ask an administrator for a group", p.Name, groupsClaim)
	}
	return p, nil
}

// name returns the person's verified mail address. Without one, it is the user name or the subject at the provider's host: people
// can often choose their own user name, so it must not look like the address of another person.
func name(issuer string, claims map[string]any) string {
	if mail := plain(claims["email"]); strings.Count(mail, "@") == 1 && verified(claims) {
		return mail
	}
	host := issuer
	if u, err := url.Parse(issuer); err == nil {
		host = u.Host
	}
	user := plain(claims["preferred_username"])
	if user == "" || strings.Contains(user, "@") {
		user = plain(claims["sub"])
	}
	return "oidc:" + user + "@" + host
}

// verified reports whether the provider has verified the mail address. Some providers send the text "true".
func verified(claims map[string]any) bool {
	return claims["email_verified"] == true || claims["email_verified"] == "true"
}

// groupsOf returns the values of a claim: a text, a list of texts, or an object whose keys are the groups. If there is no claim
// with the whole name, its dots lead into objects: `realm_access.roles`.
func groupsOf(claim string, claims map[string]any) ([]string, error) {
	if claim == "email" && !verified(claims) {
		return nil, api.Forbidden("the OpenID provider has not verified the mail address of this person, and the roles here depend on it")
	}
	value, ok := claims[claim]
	if !ok {
		value = any(claims)
		for part := range strings.SplitSeq(claim, ".") {
			in, _ := value.(map[string]any)
			value = in[part]
		}
	}
	var groups []string
	switch v := value.(type) {
	case string:
		groups = []string{v}
	case []any:
		for _, one := range v {
			if group, ok := one.(string); ok {
				groups = append(groups, group)
			}
		}
	case map[string]any:
		for group := range v {
			groups = append(groups, group)
		}
	}
	if len(groups) > maxGroups {
		return nil, api.Forbidden("the ID token names %d groups; the limit is %d: let the provider send only the groups that --oidc-role-map names", len(groups), maxGroups)
	}
	return groups, nil
}

// plain returns a short text without spaces and control characters; "" for anything else.
func plain(claim any) string {
	s, ok := claim.(string)
	if !ok || len(s) > maxText || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) || c == '/' }) {
		return ""
	}
	return s
}
