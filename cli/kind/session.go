package kind

import (
	"cmp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
