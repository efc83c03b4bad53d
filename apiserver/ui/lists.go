package ui

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// list is a window of the objects that match a filter.
type list[T any] struct {
	rows
	Items []T
}

// rows are which rows of a list the browser gets.
type rows struct {
	At           string // the address of the whole list
	Query, Phase string // the filter; only projects have phases
	All, Found   int
	From, To     int
	Prev, Next   string // addresses of the windows before and after
}

// listOf filters a list by the words of the query and cuts the window that the query asks for. The words are in lower case.
func listOf[T any](r request, path string, all []T, matches func(item T, words []string) bool) list[T] {
	l := list[T]{rows: rowsOf(r, path, len(all)), Items: all}
	if words := l.words(); len(words) > 0 {
		l.Items = slices.Clone(all) // the list is the cache's
		l.Items = slices.DeleteFunc(l.Items, func(item T) bool { return !matches(item, words) })
	}
	l.cut(r)
	return l
}

// plain returns the view of a list whose objects are shown as they are. The title in lower case is its path, template and entry of
// the navigation.
func plain[Q any, A interface{ GetItems() []T }, T any](ctx context.Context, r request, title string, kinds []string,
	call func(context.Context, Q, ...grpc.CallOption) (A, error), q Q, matches func(item T, words []string) bool,
) (view, error) {
	l, err := call(ctx, q)
	if err != nil {
		return view{}, err
	}
	path := strings.ToLower(title)
	return view{title: title, nav: path, template: path, data: listOf(r, path, l.GetItems(), matches), kinds: kinds}, nil
}

// rowsOf returns the rows of a list before it is filtered.
func rowsOf(r request, path string, all int) rows {
	return rows{At: Prefix + path, Query: clipped(r.query.Get("q")), All: all}
}

// words returns the words of the filter in lower case.
func (r rows) words() []string { return strings.Fields(strings.ToLower(r.Query)) }

// First is the number of the first row, as people count.
func (r rows) First() int { return r.From + 1 }

// cut keeps the window of the items that begins at the row that the query asks for.
func (l *list[T]) cut(r request) {
	l.Found = len(l.Items)
	from, _ := strconv.Atoi(r.query.Get("from")) // 0 if it is not a number
	l.From = max(0, min(from/window*window, (l.Found-1)/window*window))
	l.To = min(l.From+window, l.Found)
	l.Items = l.Items[l.From:l.To]
	if l.From > 0 {
		l.Prev = l.link(max(0, l.From-window))
	}
	if l.To < l.Found {
		l.Next = l.link(l.To)
	}
}

// link returns the address of the window that begins at a row, with the same filter.
func (r rows) link(from int) string {
	v := url.Values{}
	for key, value := range map[string]string{"q": r.Query, "phase": r.Phase} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if from > 0 {
		v.Set("from", strconv.Itoa(from))
	}
	if len(v) == 0 {
		return r.At
	}
	return r.At + "?" + v.Encode()
}

// all reports whether each word is in one of the texts.
func all(words []string, texts ...string) bool {
	return !slices.ContainsFunc(words, func(word string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return has(text, word) })
	})
}

// servers lists the running servers of the cluster. They are not objects: the view is rendered again when an agent comes or goes, and
// with the time.
func (vs views) servers(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Servers", []string{api.KindNode}, vs.api.info.ListServers, &emptypb.Empty{}, serverMatches)
}

// serverMatches reports whether each word is in a text by which people know a server.
func serverMatches(s *carav1.Server, words []string) bool {
	return all(words, append(slices.Clone(s.GetLoops()), s.GetAddress(), s.GetHost(), s.GetVersion())...)
}

// serverName returns the name of a server for people.
func serverName(s *carav1.Server) string {
	return cmp.Or(s.GetAddress(), s.GetHost(), "this server")
}

// sessions lists the logins of the person; to an administrator, those of all people.
func (vs views) sessions(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Sessions", []string{api.KindSession, api.KindToken}, vs.api.sessions.ListSessions, &carav1.ListRequest{}, func(s *carav1.Session, words []string) bool {
		return all(words, s.GetActor(), s.GetClient())
	})
}

// endSession ends a session. If it is the person's own, the next page is the login.
func (u *UI) endSession(w http.ResponseWriter, r *http.Request) error {
	if _, err := u.api.sessions.DeleteSession(r.Context(), &carav1.DeleteRequest{Name: r.PathValue("name")}); err != nil && !api.IsNotFound(err) {
		return err
	}
	http.Redirect(w, r, Prefix+pathSessions, http.StatusSeeOther)
	return nil
}
