package cli

import (
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

func (a *app) contextCommand() *cobra.Command {
	list := group(&cobra.Command{
		Use: "context", Short: "Show the servers that are known",
		RunE: func(*cobra.Command, []string) error { return a.listContexts() },
	})
	use := &cobra.Command{
		Use: "use NAME", Short: "Choose the server to talk to", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := a.contextsFile()
			if err != nil {
				return err
			}
			if err := access.Use(file, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "context/%s is in use\n", term.Clean(args[0]))
			return nil
		},
	}
	add := &cobra.Command{
		Use: "add NAME --server URL --token-file FILE [--ca-file FILE]", Short: "Remember a server, and use it", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.addContext(args[0]) },
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Forget a server", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := a.contextsFile()
			if err != nil {
				return err
			}
			if err := access.Remove(file, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "context/%s removed\n", term.Clean(args[0]))
			return nil
		},
	}
	list.AddCommand(use, add, remove)
	return list
}

func (a *app) listContexts() error {
	file, err := a.contextsFile()
	if err != nil {
		return err
	}
	contexts, err := access.Load(file)
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
		fmt.Fprintf(a.Err, "no contexts in %s\n", file)
		return nil
	}
	term.NewTable(a.Out).Print(rows...)
	return nil
}

// addContext keeps the token itself, not the name of its file: that may be somebody's download.
func (a *app) addContext(name string) error {
	if a.server == "" || a.tokenFile == "" {
		return errors.New("say which server with --server URL, and who you are with --token-file FILE")
	}
	file, err := a.contextsFile()
	if err != nil {
		return err
	}
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	c := access.Context{Server: access.Address(a.server), Token: strings.TrimSpace(string(token))}
	if a.caFile != "" {
		pem, err := os.ReadFile(a.caFile)
		if err != nil {
			return fmt.Errorf("read certificate authority: %w", err)
		}
		c.CA = string(pem)
	}
	conn, err := access.Dial(c) // checks the address and the authority; nothing is sent
	if err != nil {
		return err
	}
	_, err = access.Put(file, name, c)
	if err := errors.Join(conn.Close(), err); err != nil {
		return err
	}
	if err := access.Use(file, name); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "context/%s added, and is in use\n", term.Clean(name))
	return nil
}
