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

// Secret is the kind Secret. Its values never leave the server.
func Secret() Kind {
	return Kind{
		Name: api.KindSecret, Plural: "secrets",
		Columns: []string{"NAME", "TYPE", "KEYS", "AGE"},
		wide:    []string{"SOURCE"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			s := m.(*carav1.Secret)
			return []term.Cell{
				term.Text(s.GetMetadata().GetName()), term.Text(cmp.Or(s.Type, api.SecretOpaque)), term.Text(strings.Join(s.Keys, ",")),
				term.Since(now, s.GetMetadata().GetCreationTimestamp()),
				term.Text(strings.TrimPrefix(s.GetMetadata().GetOwner(), api.PrefixSource)),
			}
		},
		List:   lister(carav1.NewSecretServiceClient, carav1.SecretServiceClient.ListSecrets, byLabel),
		Get:    getter(carav1.NewSecretServiceClient, carav1.SecretServiceClient.GetSecret),
		Remove: remover(carav1.NewSecretServiceClient, carav1.SecretServiceClient.DeleteSecret),
	}
}
