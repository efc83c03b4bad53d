package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cli/term"
	"github.com/caravanserai/cara/internal/access"
)

// contextOptions are for the commands that change the file of contexts.
type contextOptions struct {
	*app
	file, name string
	change     func(*contextOptions) (done string, err error)
}

func newContext(a *app) *cobra.Command {
	list := command(group(&cobra.Command{
		Use: "context", Short: "Show the known servers; choose, add or remove one", Example: "  caractrl context",
	}), &listContextsOptions{noArgs{a}})
	change := func(cmd *cobra.Command, change func(*contextOptions) (string, error)) {
		cmd.Args = cobra.ExactArgs(1)
		list.AddCommand(command(cmd, &contextOptions{app: a, change: change}))
	}
	change(&cobra.Command{
		Use: "use NAME", Short: "Choose the server to talk to", ValidArgsFunction: completion{a}.contexts, Example: "  caractrl context use prod",
	}, func(o *contextOptions) (string, error) { return "is in use", access.Use(o.file, o.name) })
	change(&cobra.Command{
		Use: "add NAME --server URL --token-file FILE [--ca-file FILE]", Short: "Remember a server, and use it",
		Example: "  caractrl context add prod --server https://cara.example.com --token-file token --ca-file ca.crt",
	}, (*contextOptions).add)
	change(&cobra.Command{
		Use: "remove NAME", Short: "Forget a server", ValidArgsFunction: completion{a}.contexts, Example: "  caractrl context remove prod",
	}, func(o *contextOptions) (string, error) { return "removed", access.Remove(o.file, o.name) })
	return list
}

func (o *contextOptions) parse(args []string) (err error) {
	o.name = args[0]
	o.file, err = o.contextsFile()
	return err
}

func (o *contextOptions) run(context.Context) error {
	done, err := o.change(o)
	if err == nil {
		fmt.Fprintf(o.Out, "context/%s %s\n", term.Clean(o.name), done)
	}
	return err
}

// add keeps the token itself, not the name of its file, which may be temporary.
func (o *contextOptions) add() (done string, err error) {
	if o.server == "" || o.tokenFile == "" {
		return "", errors.New("name the server with --server URL, and give your token with --token-file FILE")
	}
	token, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	c := access.Context{Server: o.server, Token: strings.TrimSpace(string(token))}
	if err := o.authority(&c); err != nil {
		return "", err
	}
	conn, err := access.Dial(c) // checks the address and the authority without sending anything
	if err != nil {
		return "", err
	}
	_, err = access.Put(o.file, o.name, c)
	if err := errors.Join(conn.Close(), err); err != nil {
		return "", err
	}
	return "added, and is in use", access.Use(o.file, o.name)
}

type listContextsOptions struct{ noArgs }

func (o *listContextsOptions) run(context.Context) error {
	file, contexts, err := o.remembered()
	if err != nil {
		return err
	}
	rows := [][]term.Cell{term.Header("CURRENT", "NAME", "SERVER")}
	for _, name := range slices.Sorted(maps.Keys(contexts.Contexts)) {
		current := " "
		if name == contexts.Current {
			current = "*"
		}
		rows = append(rows, []term.Cell{{Text: current}, term.Text(name), term.Text(contexts.Contexts[name].Server)})
	}
	if len(rows) == 1 {
		fmt.Fprintf(o.Err, "no contexts in %s\n", file)
		return nil
	}
	term.NewTable(o.Out).Print(rows...)
	return nil
}
