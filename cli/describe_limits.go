package cli

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sourceLimits prints what the projects of a source may be called and may use.
func (a *app) sourceLimits(allow *carav1.SourceAllow) {
	list := func(patterns []string, otherwise string) string {
		return cmp.Or(strings.Join(patterns, ", "), otherwise)
	}
	a.field("May declare", list(allow.GetNames(), "projects of every name"))
	a.field("May claim", list(allow.GetHosts(), "every host that is not reserved"))
	a.field("May use", list(allow.GetSecrets(), "no Secret"))
}

// describeToken prints what a token lets its bearer do.
func (a *app) describeToken(t *carav1.Token) {
	a.meta(t.GetMetadata())
	a.field("Role", t.GetRole())
	if at := t.GetExpireAt(); at != nil {
		a.field("Expires", term.Until(a.now(), at).Text+" ("+at.AsTime().UTC().Format(time.RFC3339)+")")
	} else {
		a.field("Expires", "never")
	}
	switch t.GetRole() {
	case api.RoleDeployer:
		a.field("May change", cmp.Or(quotedPrefix(t.GetNamePrefix()), "projects and Secrets of every name"))
		hosts := strings.Join(t.GetHosts(), ", ")
		if hosts == "" && t.GetNamePrefix() != "" {
			hosts = t.GetNamePrefix() + "*"
		}
		a.field("May claim", cmp.Or(hosts, "every host that is not reserved"))
	case api.RoleJoin:
		uses := "none left"
		if t.GetUsesLeft() > 0 {
			uses = strconv.Itoa(int(t.GetUsesLeft())) + " left"
		}
		a.field("Uses", uses)
		a.field("Nodes", cmp.Or(strings.Join(t.GetNodeNames(), ", "), "every name"))
		a.field("Node labels", cmp.Or(kind.Pairs(t.GetLabels()), "none"))
	}
}

func quotedPrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	return "what begins with " + strconv.Quote(prefix)
}
