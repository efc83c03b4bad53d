package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type pageOptions struct{ noArgs }

func newPage(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "page", Short: "Print a link that opens the web page and logs in",
		Long: "Print a link that opens the web page of the server and logs in. The link works once, within 10 minutes. The page then has\n" +
			"the rights of the token that caractrl uses. The address is the one that caractrl uses.",
		Example: "  caractrl page",
	}, &pageOptions{noArgs{a}})
}

func (o *pageOptions) run(ctx context.Context) error {
	conn, err := o.dial()
	if err != nil {
		return err
	}
	login, err := carav1.NewTokenServiceClient(conn).CreateLogin(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	fmt.Fprintln(o.Out, term.Clean(strings.TrimSuffix(o.reached, "/")+login.GetPath()))
	if term.IsTerminal(o.Err) {
		fmt.Fprintln(o.Err, "The link works once, until", login.GetExpireAt().AsTime().UTC().Format(time.RFC3339)+".")
	}
	return nil
}
