package kind

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Token is the kind Token, without its secret.
func Token() Kind {
	return Kind{
		Name: api.KindToken, Plural: "tokens",
		Columns:  []string{"NAME", "ROLE", "PREFIX", "USES", "EXPIRES", "AGE"},
		wide:     []string{"HOSTS", "NODES", "LABELS"},
		Row:      tokenRow,
		Describe: describeToken,
		List:     lister(carav1.NewTokenServiceClient, carav1.TokenServiceClient.ListTokens, byLabel),
		Remove:   remover(carav1.NewTokenServiceClient, carav1.TokenServiceClient.DeleteToken),
	}
}

func tokenRow(m proto.Message, now time.Time) []term.Cell {
	t := m.(*carav1.Token)
	uses := "-"
	switch {
	case t.UsesLeft > 0:
		uses = strconv.Itoa(int(t.UsesLeft))
	case t.UsesLeft < 0:
		uses = "none left"
	}
	return []term.Cell{
		term.Text(t.GetMetadata().GetName()), term.Text(t.Role), term.Text(t.NamePrefix), term.Text(uses),
		term.Until(now, t.ExpireAt), term.Since(now, t.GetMetadata().GetCreationTimestamp()),
		term.Text(strings.Join(t.Hosts, ",")), term.Text(strings.Join(t.NodeNames, ",")), term.Text(Pairs(t.Labels)),
	}
}

// describeToken shows what a token allows.
func describeToken(_ context.Context, p Page, m proto.Message) error {
	t := m.(*carav1.Token)
	p.meta(t.GetMetadata())
	p.Field("Role", t.GetRole())
	p.Field("Expires", cmp.Or(deadline(p.Now, t.GetExpireAt()), "never"))
	switch prefix := t.GetNamePrefix(); t.GetRole() {
	case api.RoleDeployer:
		names, hosts := "projects and Secrets of every name", t.GetHosts()
		if prefix != "" {
			names = "what begins with " + strconv.Quote(prefix)
		}
		if prefix != "" && len(hosts) == 0 {
			hosts = []string{prefix + "*"}
		}
		p.Field("May change", names)
		p.Field("May claim", limit(hosts, "every host that is not reserved"))
	case api.RoleJoin:
		uses := "none left"
		if t.GetUsesLeft() > 0 {
			uses = strconv.Itoa(int(t.GetUsesLeft())) + " left"
		}
		p.Field("Uses", uses)
		p.Field("Nodes", limit(t.GetNodeNames(), "every name"))
		p.Field("Node labels", cmp.Or(Pairs(t.GetLabels()), "none"))
	}
	return nil
}

// Session is the kind Session: the logins of people.
func Session() Kind {
	return Kind{
		Name: api.KindSession, Plural: "sessions",
		Columns: []string{"NAME", "USER", "CLIENT", "ROLE", "EXPIRES", "AGE", "CURRENT"},
		wide:    []string{"TOKEN", "PREFIXES"},
		Row:     sessionRow,
		List:    lister(carav1.NewSessionServiceClient, carav1.SessionServiceClient.ListSessions, byLabel),
		Remove:  remover(carav1.NewSessionServiceClient, carav1.SessionServiceClient.DeleteSession),
	}
}

func sessionRow(m proto.Message, now time.Time) []term.Cell {
	s := m.(*carav1.Session)
	current := ""
	if s.GetCurrent() {
		current = "*"
	}
	return []term.Cell{
		term.Text(s.GetMetadata().GetName()), term.Text(strings.TrimPrefix(s.GetActor(), api.PrefixUser)), term.Text(s.GetClient()),
		term.Text(s.GetRole()), term.Until(now, s.GetExpireAt()), term.Since(now, s.GetMetadata().GetCreationTimestamp()), term.Text(current),
		term.Text(cmp.Or(s.GetToken(), "-")), term.Text(strings.Join(s.GetNamePrefixes(), ",")),
	}
}
