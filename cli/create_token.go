package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) createTokenCommand() *cobra.Command {
	t := &carav1.Token{}
	var length time.Duration
	cmd := &cobra.Command{
		Use: "token NAME --role ROLE", Short: "Make a token for a person, a pipeline or an agent; it is shown once", Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&t.Role, "role", api.RoleViewer, "admin, deployer, viewer, or join for agents")
	f.StringVar(&t.NamePrefix, "name-prefix", "", "a deployer's bound: only objects whose names begin with this")
	f.StringSliceVar(&t.Hosts, "host", nil, "a deployer's bound: hosts that its projects may claim, such as *.example.com (default: those that begin with the name prefix)")
	f.DurationVar(&length, "for", 0, "end after this long (default: never; 24h for join)")
	f.Int32Var(&t.UsesLeft, "uses", 0, "how many agents may join with it (default: 10)")
	f.StringSliceVar(&t.NodeNames, "node-name", nil, "names that nodes may join under, such as rack7-* (default: every name)")
	f.StringToStringVar(&t.Labels, "label", nil, "labels of the nodes that join: key=value; a node may choose where the value has a *, such as disk=*")
	offer(cmd, "role", cobra.FixedCompletions([]string{api.RoleAdmin, api.RoleDeployer, api.RoleViewer, api.RoleJoin}, noFiles))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t.Metadata = &carav1.ObjectMeta{Name: args[0]}
		if length > 0 {
			t.ExpireAt = timestamppb.New(a.now().Add(length))
		}
		conn, err := a.dial()
		if err != nil {
			return err
		}
		resp, err := carav1.NewTokenServiceClient(conn).CreateToken(cmd.Context(), &carav1.CreateTokenRequest{Token: t})
		if err != nil {
			return err
		}
		fmt.Fprintln(a.Out, resp.Secret)
		if made := resp.GetToken(); made.GetRole() == api.RoleJoin {
			fmt.Fprintf(a.Err, "for %s, until %s\n", term.Plural(int(made.GetUsesLeft()), "node"), made.GetExpireAt().AsTime().UTC().Format(time.RFC3339))
		}
		return nil
	}
	return cmd
}
