package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
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
	target, err := o.access()
	if err != nil {
		return err
	}
	for server := range strings.SplitSeq(target.Server, ",") { // the link has the address of the one that answers
		target.Server = server
		if err = o.show(ctx, target); api.Code(err) != codes.Unavailable {
			break
		}
	}
	return err
}

func (o *pageOptions) show(ctx context.Context, target access.Context) error {
	conn, err := access.Dial(target)
	if err != nil {
		return err
	}
	defer conn.Close()
	o.reached = target.Server
	login, err := carav1.NewTokenServiceClient(conn).CreateLogin(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	fmt.Fprintln(o.Out, term.Clean(strings.TrimSuffix(target.Server, "/")+login.GetPath()))
	if term.IsTerminal(o.Err) {
		fmt.Fprintln(o.Err, "The link works once, until", login.GetExpireAt().AsTime().UTC().Format(time.RFC3339)+".")
	}
	return nil
}
