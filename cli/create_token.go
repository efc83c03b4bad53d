package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) createTokenCommand() *cobra.Command {
	t := &carav1.Token{}
	var length time.Duration
	cmd := &cobra.Command{
		Use: "token NAME --role ROLE", Short: "Make a token for a person, a pipeline or an agent; it is shown once", Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&t.Role, "role", "viewer", "admin, deployer, viewer, or join for agents")
	f.StringVar(&t.NamePrefix, "name-prefix", "", "only projects whose names begin with this")
	f.DurationVar(&length, "for", 0, "end after this long (default: never)")
	f.Int32Var(&t.UsesLeft, "uses", 0, "how many agents may join with it; 0 for any number")
	offer(cmd, "role", cobra.FixedCompletions([]string{"admin", "deployer", "viewer", "join"}, noFiles))
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
		return nil
	}
	return cmd
}
