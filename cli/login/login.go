// Package login logs a person in with OpenID Connect, in a browser of this machine or on another device, and decides which
// context remembers that. It is what a person does before a push can be looked at; the server makes all decisions.
//
// Invariants: the tokens of the provider never reach this machine. The token of a session is returned and never shown. A
// context that has a token of its own is never replaced.
package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

const (
	// limit is how long a login may take. The limit of the server is the same.
	limit = 10 * time.Minute
	// endWithin limits the time in which a server must end a session.
	endWithin = 15 * time.Second
)

// errLate means that the limit is over.
var errLate = errors.New("nobody has logged in within 10 minutes: run caractrl login again")

// Terminal is where a person asks for a login.
type Terminal struct {
	// Err shows what the person has to do.
	Err      io.Writer
	Sessions carav1.SessionServiceClient
	// Server is the URL of the server, as the browser reaches it.
	Server string
	// Open opens an address in a browser; nil if there is none.
	Open func(address string)
	// Limit is how long the login may take; 0 means 10 minutes.
	Limit time.Duration
}

// limited returns a context that ends with errLate when the login takes too long.
func (t Terminal) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, cmp.Or(t.Limit, limit), errLate)
}

// Offered returns why a server does not log people in with OpenID Connect; nil if it does. It names no login, which every
// server that does refuses.
func Offered(ctx context.Context, sessions carav1.SessionServiceClient) error {
	_, err := sessions.FinishLogin(ctx, &carav1.FinishLoginRequest{})
	switch api.Code(err) {
	case codes.InvalidArgument:
		return nil
	case codes.Unimplemented:
		return errors.New("this server is too old for caractrl login: use a token; caractrl context add remembers one")
	default:
		return err
	}
}

// End ends the session of a context at the server. It succeeds if the session has ended before.
func End(ctx context.Context, c access.Context) error {
	conn, err := access.Dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	sessions := carav1.NewSessionServiceClient(conn)
	l, err := sessions.ListSessions(ctx, &carav1.ListRequest{})
	for _, s := range l.GetItems() {
		if s.GetCurrent() {
			_, err = sessions.DeleteSession(ctx, &carav1.DeleteRequest{Name: s.GetMetadata().GetName()})
		}
	}
	if code := api.Code(err); code == codes.Unauthenticated || code == codes.NotFound {
		return nil
	}
	return err
}

// Target returns the context that remembers a login, and its name. name and server are what the person has given, or empty.
// The context has no token. For a server that has contexts with tokens alone, it is a new one.
func Target(all access.Contexts, name, server string) (string, access.Context, error) {
	old, there := all.Contexts[name]
	switch {
	case server == "" && name == "":
		server = all.Contexts[all.Current].Server
	case server == "":
		server = old.Server
	}
	if server == "" && name != "" {
		return "", access.Context{}, fmt.Errorf("there is no context %q: give --server URL, and the login makes it", name)
	}
	if server == "" {
		return "", access.Context{}, errors.New("no server is known: give --server URL, such as https://cara.example.com")
	}
	if name == "" {
		if name = Find(all, server); name == "" {
			first, _, _ := strings.Cut(server, ",")
			u, err := url.Parse(first)
			if err != nil || u.Hostname() == "" {
				return "", access.Context{}, fmt.Errorf("server %q is not an address such as https://cara.example.com:8080", server)
			}
			name = u.Hostname()
		}
		old, there = all.Contexts[name]
	}
	switch {
	case there && old.Server != server:
		return "", access.Context{}, fmt.Errorf("context %q is for %s: give the login another name with --context NAME", name, old.Server)
	case there && !old.Login:
		return "", access.Context{}, fmt.Errorf("context %q has a token, which a login would replace: give the login another name with --context NAME", name)
	}
	return name, access.Context{Server: server, CA: authority(all, name, server), Login: true}, nil
}

// Find returns the name of the context that remembers a login to a server: the current one, if it does; "" if none does.
func Find(all access.Contexts, server string) string {
	for _, name := range append([]string{all.Current}, slices.Sorted(maps.Keys(all.Contexts))...) {
		if c := all.Contexts[name]; c.Login && c.Server == server {
			return name
		}
	}
	return ""
}

// authority returns the certificate authority that a context knows for a server, else the one of another context.
func authority(all access.Contexts, first, server string) string {
	for _, name := range append([]string{first, all.Current}, slices.Sorted(maps.Keys(all.Contexts))...) {
		if c := all.Contexts[name]; c.Server == server && c.CA != "" {
			return c.CA
		}
	}
	return ""
}
