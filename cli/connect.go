package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/settings"
)

// link is how a command reaches its cluster: the flags that choose it, the contexts, and the connection, which the first call
// creates. It is a connection itself: a command whose server is unknown or unusable fails at its first call.
type link struct {
	server    string   // the addresses of --server, complete, separated by commas
	servers   []string // as given
	tokenFile string
	caFile    string
	context   string
	file      string // of the contexts
	once      sync.Once
	conn      *grpc.ClientConn // created by the first dial
	failed    error            // of the first dial
	reached   string           // address of the server behind conn
	cluster   string           // name of the context in use; empty if there is none
	others    bool             // cluster is the current context, and there are others
	loggedIn  bool             // the token in use is that of caractrl login
}

// settle reads the settings that are not flags of the command line.
func (l *link) settle(cmd *cobra.Command) error {
	err := settings.Load(cmd.Flags())
	l.server = access.Address(strings.Join(l.servers, ","))
	return err
}

// dial connects to the server of the flags or of the context. Later calls return the same connection.
func (l *link) dial() (*grpc.ClientConn, error) {
	l.once.Do(func() {
		var target access.Context
		if target, l.failed = l.access(); l.failed != nil {
			return
		}
		if l.conn, l.failed = access.Dial(target); l.failed == nil {
			l.reached = target.Server
		}
	})
	return l.conn, l.failed
}

// Invoke makes one call, as a [grpc.ClientConnInterface].
func (l *link) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := l.dial()
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream begins a stream, as a [grpc.ClientConnInterface].
func (l *link) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := l.dial()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}

// close closes the connection, if there is one. It ignores an error, because the program is about to end.
func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

func (l *link) contextsFile() (string, error) {
	if l.file != "" {
		return l.file, nil
	}
	return access.File()
}

// remembered returns the file of the contexts and its content.
func (l *link) remembered() (file string, all access.Contexts, err error) {
	if file, err = l.contextsFile(); err == nil {
		all, err = access.Load(file)
	}
	return file, all, err
}

// authority sets the certificate authority of a context to that of --ca-file, if the flag is given.
func (l *link) authority(c *access.Context) error {
	if l.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(l.caFile)
	if err != nil {
		return fmt.Errorf("read certificate authority: %w", err)
	}
	c.CA = string(pem)
	return nil
}

// access returns the context in use, with the flags applied to it. A token is only sent to the server that it was stored
// with: --server uses the token of the context that has the same address.
func (l *link) access() (access.Context, error) {
	var c access.Context
	file, err := l.contextsFile()
	if err != nil {
		return c, err
	}
	if l.server == "" || l.tokenFile == "" || l.context != "" {
		if c, err = l.chosen(file); err != nil {
			return c, err
		}
	}
	c.Server = cmp.Or(l.server, c.Server)
	if l.tokenFile != "" {
		c.Token, c.TokenFile, c.Login = "", l.tokenFile, false
	}
	if err := l.authority(&c); err != nil {
		return c, err
	}
	switch {
	case c.Server == "":
		return c, fmt.Errorf("no server is known: start cara-server as this user, or give --server and --token-file (looked in %s)", file)
	case c.Token == "" && c.Login:
		return c, fmt.Errorf("you are logged out of %s: log in with %s", c.Server, l.loginCommand())
	case c.Token == "" && c.TokenFile == "":
		return c, fmt.Errorf("no token is known for %s: give --token-file, or log in with caractrl login (looked in %s)", c.Server, file)
	}
	l.loggedIn = c.Login
	return c, nil
}

// chosen returns the context of --context, else the one of --server, else the current one.
func (l *link) chosen(file string) (access.Context, error) {
	contexts, err := access.Load(file)
	switch {
	case err != nil:
		return access.Context{}, err
	case l.context != "":
		c, ok := contexts.Contexts[l.context]
		if !ok {
			return c, fmt.Errorf("there is no context %q in %s; caractrl context lists them", l.context, file)
		}
		l.cluster = l.context
		if l.server != "" && l.server != c.Server {
			l.cluster, c = "", access.Context{Server: c.Server}
		}
		return c, nil
	case l.server == "":
		l.cluster, l.others = contexts.Current, len(contexts.Contexts) > 1
		return contexts.Contexts[contexts.Current], nil
	}
	if c := contexts.Contexts[contexts.Current]; c.Server == l.server {
		l.cluster = contexts.Current
		return c, nil
	}
	for _, name := range slices.Sorted(maps.Keys(contexts.Contexts)) {
		if c := contexts.Contexts[name]; c.Server == l.server {
			l.cluster = name
			return c, nil
		}
	}
	return access.Context{}, nil
}

// nameCluster shows a person which cluster the command will change, so that a wrong context is noticed. Scripts do not see it.
func (a *app) nameCluster() error {
	_, err := a.dial()
	if err == nil && term.IsTerminal(a.Err) {
		fmt.Fprintln(a.Err, "cluster:", a.clusterText())
	}
	return err
}

// clusterText returns the context in use and its address; the address alone without a context.
func (l *link) clusterText() string {
	if l.cluster == "" {
		return term.Clean(l.reached)
	}
	return fmt.Sprintf("%s (%s)", term.Clean(l.cluster), term.Clean(l.reached))
}

// loginCommand is how the person logs in again to the server of the context in use.
func (l *link) loginCommand() string {
	if l.context == "" && l.server == "" {
		return "caractrl login"
	}
	return "caractrl login --context " + l.cluster
}

// printError shows the detail of an error, then each field if there are several.
func (a *app) printError(err error) {
	p := api.ProblemOf(err)
	detail := p.GetDetail()
	if cause, ok := unreachable(err); ok {
		detail = fmt.Sprintf("%s cannot be reached: %s", a.reached, cause)
		if a.others {
			detail += fmt.Sprintf(" (this is the current context %s; caractrl context lists the others)", a.cluster)
		}
	}
	if a.loggedIn && api.Code(err) == codes.Unauthenticated {
		detail = fmt.Sprintf("your login has ended: log in again with %s (the server says: %s)", a.loginCommand(), detail)
	}
	fmt.Fprintln(a.Err, "error:", term.Clean(detail))
	if len(p.GetErrors()) > 1 {
		a.printFields(p)
	}
}

func (a *app) printFields(p *carav1.Problem) {
	for _, f := range p.GetErrors() {
		fmt.Fprintf(a.Err, "  %s: %s\n", term.Line(f.Field), term.Line(f.Message))
	}
}

// unreachable reports whether err comes from the connection and not from the server, and returns its cause.
func unreachable(err error) (cause string, ok bool) {
	if api.Code(err) != codes.Unavailable {
		return "", false
	}
	cause = api.ProblemOf(err).GetDetail()
	_, wrapped, dialled := strings.Cut(cause, `desc = "transport: `)
	switch {
	case dialled:
		cause = strings.TrimSuffix(wrapped, `"`)
		cause = strings.TrimPrefix(cause, "Error while dialing: ")
		cause = strings.TrimPrefix(cause, "authentication handshake failed: ")
	case strings.HasPrefix(cause, "error reading from server"), strings.HasPrefix(cause, "connection error"):
	default:
		return "", false // the server returned this error
	}
	hints := []struct{ part, hint string }{
		{"unknown authority", "; give --ca-file (ca.crt in the server's data directory)"},
		{"not like a TLS handshake", "; the server speaks plain http there: use http://"},
		{"connection refused", "; is cara-server running there?"},
		{"no such host", "; is the name right?"},
	}
	for _, h := range hints {
		if strings.Contains(cause, h.part) {
			return cause + h.hint, true
		}
	}
	return cause, true
}

func (l *link) projects() carav1.ProjectServiceClient { return carav1.NewProjectServiceClient(l) }
func (l *link) sources() carav1.SourceServiceClient   { return carav1.NewSourceServiceClient(l) }
