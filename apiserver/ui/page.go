package ui

import (
	"context"
	"net/http"
	"net/url"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
)

// request is what a view may depend on, besides the state of the cluster.
type request struct {
	actor identity.Actor
	query url.Values
	name  string // of the object in the path; "" for a list
}

// view is what a view shows.
type view struct {
	title    string
	nav      string // the entry of the navigation
	template string
	data     any
	// kinds are the kinds of objects that the view shows. name, if it is set, is the project or the source that the view is about:
	// of its kind, and of events, claims and the like, only what belongs to it is shown.
	kinds []string
	name  string
	// source is the source of that project.
	source string
}

// show computes a view.
type show func(ctx context.Context, r request) (view, error)

func requestOf(r *http.Request) request {
	return request{actor: actorOf(r), query: r.URL.Query(), name: r.PathValue("name")}
}

// get makes a call, unless an earlier one of a view has failed.
func get[Q, A any](ctx context.Context, err *error, call func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) (answer A) {
	if *err == nil {
		answer, *err = call(ctx, q)
	}
	return answer
}

// page serves a view as a document.
func (u *UI) page(show show) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := show(r.Context(), requestOf(r))
		if err != nil {
			return err
		}
		return u.document(w, r, http.StatusOK, v)
	}
}

// document writes a whole document with a view. If the view cannot be rendered, it writes nothing.
func (u *UI) document(w http.ResponseWriter, r *http.Request, status int, v view) error {
	body, id, err := u.render(v)
	if err != nil {
		return err
	}
	actor := actorOf(r)
	u.send(w, status, "shell", map[string]any{
		"Title": v.title, "Nav": v.nav, "Body": trusted(body), "ID": id, "Assets": u.version, "Actor": actor, "Live": len(v.kinds) > 0,
		"Done": u.doneOf(r), "Tokens": u.MayCall(actor, methodListTokens) == nil, "Cluster": u.ClusterID, "Version": u.Version,
	})
	return nil
}

// refuse answers with an error.
func (u *UI) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if actorOf(r).Session == "" {
		u.entrance.failed(w, loginForm{}, err)
		return
	}
	problem := api.ProblemOf(api.Wire(err))
	status := int(problem.GetStatus())
	if err := u.document(w, r, status, view{title: problem.GetTitle(), template: "problem", data: problem}); err != nil {
		http.Error(w, problem.GetDetail(), status)
	}
}
