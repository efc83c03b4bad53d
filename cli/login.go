package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/login"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

type loginOptions struct {
	noArgs
	device, noBrowser bool
}

func newLogin(a *app) *cobra.Command {
	o := &loginOptions{noArgs: noArgs{a}}
	cmd := command(&cobra.Command{
		Use: "login [--server URL]", Short: "Log in with the account of your organisation", Args: cobra.NoArgs,
		Long: "Log in with the account of your organisation, if the server uses OpenID Connect. The command prints an address and opens\n" +
			"it in a browser of this machine. With --device, you log in on any other device.\n\n" +
			"A context remembers the login and is in use then: the one of --context, else the one of an earlier login to this\n" +
			"server, else a new one with the name of the host. A login lasts at most 7 days. caractrl logout ends it.",
		Example: "  caractrl login --server https://cara.example.com\n  caractrl login --device",
	}, o)
	cmd.Flags().BoolVar(&o.device, "device", false, "log in on another device, such as a phone")
	cmd.Flags().BoolVar(&o.noBrowser, "no-browser", false, "open no browser, only print the address")
	return cmd
}

func (o *loginOptions) run(ctx context.Context) error {
	file, contexts, err := o.remembered()
	if err != nil {
		return err
	}
	name, c, err := login.Target(contexts, o.context, o.server)
	if err != nil {
		return err
	}
	if err := o.authority(&c); err != nil {
		return err
	}
	done, err := o.person(ctx, c)
	if err != nil && ctx.Err() != nil {
		return term.Exit{Code: exitInterrupted, Message: "the login was cancelled: you are not logged in"}
	}
	if err != nil {
		return err
	}
	c.Token = done.GetToken()
	return o.keep(ctx, file, name, c, contexts.Contexts[name], done.GetSession())
}

// person logs the person in at the first server that answers.
func (o *loginOptions) person(ctx context.Context, c access.Context) (done *carav1.FinishLoginResponse, err error) {
	for server := range strings.SplitSeq(c.Server, ",") {
		o.reached = server
		var conn *grpc.ClientConn
		if conn, err = access.Dial(access.Context{Server: server, CA: c.CA}); err != nil {
			return nil, err
		}
		defer conn.Close()
		t := login.Terminal{Err: o.Err, Sessions: carav1.NewSessionServiceClient(conn), Server: server}
		switch err = login.Offered(ctx, t.Sessions); {
		case api.Code(err) == codes.Unavailable:
			continue
		case err != nil:
			return nil, err
		case o.device:
			return t.OnDevice(ctx)
		case !o.noBrowser:
			t.Open = login.Browser()
		}
		return t.InBrowser(ctx)
	}
	return nil, err
}

// keep stores a login. A session that nothing remembers is ended: the one that is replaced, or the new one if it cannot be stored.
func (o *loginOptions) keep(ctx context.Context, file, name string, c, old access.Context, s *carav1.Session) error {
	_, err := access.Put(file, name, c)
	if err == nil {
		err = access.Use(file, name)
	}
	if err != nil {
		return errors.Join(err, login.End(ctx, c))
	}
	if old.Token != "" {
		_ = login.End(ctx, old) // it ends by itself, too
	}
	fmt.Fprintf(o.Out, "logged in to %s as %s with the role %s; context/%s is in use\n",
		term.Clean(o.reached), term.Line(strings.TrimPrefix(s.GetActor(), api.PrefixUser)), term.Line(s.GetRole()), term.Clean(name))
	if o.tokenFile != "" {
		fmt.Fprintln(o.Err, "note: CARA_TOKEN_FILE or --token-file is set. Commands use that token, and not the login, until you unset it")
	}
	return nil
}

type logoutOptions struct{ noArgs }

func newLogout(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "logout", Short: "End the login of caractrl login", Args: cobra.NoArgs,
		Long: "End the login of the current context, or of --context or --server: the server ends the session, and the token is\n" +
			"removed from this machine. The context keeps the server, for the next caractrl login.",
		Example: "  caractrl logout\n  caractrl logout --context cara.example.com",
	}, &logoutOptions{noArgs{a}})
}

func (o *logoutOptions) run(ctx context.Context) error {
	file, contexts, err := o.remembered()
	if err != nil {
		return err
	}
	name := o.context
	if name == "" {
		if name = contexts.Current; o.server != "" {
			name = login.Find(contexts, o.server)
		}
	}
	c, there := contexts.Contexts[name]
	switch {
	case !there:
		return fmt.Errorf("no login is known here (looked in %s): caractrl context lists what is", file)
	case !c.Login:
		return fmt.Errorf("context %q has a token and not a login: caractrl context remove %s forgets it", name, name)
	case c.Token == "":
		fmt.Fprintf(o.Out, "already logged out of %s\n", term.Clean(c.Server))
		return nil
	}
	o.reached = c.Server
	ended := login.End(ctx, c)
	c.Token = ""
	if _, err := access.Put(file, name, c); err != nil {
		return errors.Join(err, ended)
	}
	if ended != nil {
		reason := api.ProblemOf(ended).GetDetail()
		if cause, ok := unreachable(ended); ok {
			reason = cause
		}
		return fmt.Errorf("the token is removed from this machine, but %s did not end the session (%s): it ends at most 7 days after the login, or end it on the page under Sessions", c.Server, reason)
	}
	fmt.Fprintf(o.Out, "logged out of %s\n", term.Clean(c.Server))
	return nil
}

type whoamiOptions struct {
	noArgs
	output string
}

func newWhoami(a *app) *cobra.Command {
	o := &whoamiOptions{noArgs: noArgs{a}}
	cmd := command(&cobra.Command{
		Use: "whoami", Short: "Show who you are to the server, and what you may change", Args: cobra.NoArgs,
		Example: "  caractrl whoami\n  caractrl whoami -o json",
	}, o)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "table|json|yaml")
	offer(cmd, "output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, noFiles))
	return cmd
}

func (o *whoamiOptions) parse([]string) error {
	if !slices.Contains([]string{"", "table", "json", "yaml"}, o.output) {
		return fmt.Errorf("unknown output format %q: want table, json or yaml", o.output)
	}
	return nil
}

func (o *whoamiOptions) run(ctx context.Context) error {
	info, err := carav1.NewInfoServiceClient(o.app).GetInfo(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	if o.output == "json" || o.output == "yaml" {
		return kind.Print(o.Out, o.output, false, []proto.Message{info})
	}
	names, end := "all", "no end"
	if len(info.GetNamePrefixes()) > 0 {
		names = strings.Join(info.GetNamePrefixes(), "*, ") + "*"
	}
	if info.GetExpireAt() != nil {
		end = info.GetExpireAt().AsTime().UTC().Format(time.RFC3339)
		if o.loggedIn {
			end += ", renewed while you use it if the provider allows"
		}
	}
	fmt.Fprintf(o.Out, "name:   %s\nrole:   %s\nnames:  %s\nuntil:  %s\nserver: %s\n",
		term.Line(strings.TrimPrefix(info.GetActor(), api.PrefixUser)), term.Line(cmp.Or(info.GetRole(), "-")), term.Line(names), end, o.clusterText())
	return nil
}
