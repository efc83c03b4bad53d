package ui

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// action is something that a person may do to an object. Its page first shows what it will do and the command of caractrl
// that does the same.
type action struct {
	name, label, kind string
	method            string // the RPC, which decides who may do it
	danger            bool
	done              string // what the page says afterwards
	undo              string // the action that takes it back; empty if none does
	command           string // of caractrl, without the object's name
	// offered reports whether the action makes sense in the object's state; nil is always.
	offered func(proto.Message) bool
	// ask adds what will change and what the person must say.
	ask func(ctx context.Context, c clients, q *question) error
	// run does it with the values of the form.
	run func(ctx context.Context, c clients, m proto.Message, f url.Values) error
}

// field is one input of the form of an action. Flag is that of caractrl; an argument has the flag "-".
type field struct {
	Name, Label, Flag, Value, Help string
	Options                        []option
	Required                       bool
}

type option struct{ Value, Label string }

// question is the page of an action: what will change, and what the person must say.
type question struct {
	Action, Label, Kind, Name string
	Danger                    bool
	Back                      string
	Effects                   []string
	Diff                      []*carav1.FieldDiff
	Fields                    []field
	Command                   string
	Key, Seen                 string
	Problem                   string

	object proto.Message
	query  url.Values
}

// offer is an action that a view offers.
type offer struct {
	Label, Link string
	Danger      bool
}

// offers returns the actions that make sense for an object and that the person may do.
func (vs views) offers(a identity.Actor, m proto.Message) []offer {
	var out []offer
	kind, name := api.Kind(m), api.Meta(m).GetName()
	for _, act := range actions() {
		if act.kind == kind && vs.may(a, act.method, name) && (act.offered == nil || act.offered(m)) {
			out = append(out, offer{act.label, doLink(act.name, name), act.danger})
		}
	}
	return out
}

// seenOf returns what the person has seen of an object: see objects.SeenOf.
func seenOf(m proto.Message) string {
	if p, ok := m.(*carav1.Project); ok {
		return objects.SeenOf(p)
	}
	meta := api.Meta(m)
	return fmt.Sprintf("%s/%d", meta.GetUid(), meta.GetGeneration())
}

// find returns the action of a request, and its object.
func (u *UI) find(r *http.Request) (action, proto.Message, error) {
	name := r.PathValue("name")
	act, ok := actionNamed(r.PathValue("action"))
	if !ok {
		return action{}, nil, api.NotFound("the page has no action %q", r.PathValue("action"))
	}
	actor := actorOf(r)
	if err := cmp.Or(u.MayCall(actor, act.method), actor.CheckName(name)); err != nil {
		return act, nil, err
	}
	m, err := u.api.subject(r.Context(), act.kind, name)
	return act, m, err
}

// ask shows what an action will do.
func (u *UI) ask(w http.ResponseWriter, r *http.Request) error {
	act, m, err := u.find(r)
	if err != nil {
		return err
	}
	return u.showQuestion(w, r, act, m, http.StatusOK, "")
}

func (u *UI) showQuestion(w http.ResponseWriter, r *http.Request, act action, m proto.Message, status int, problem string) error {
	name := api.Meta(m).GetName()
	q := &question{
		Action: act.name, Label: act.label, Kind: act.kind, Name: name, Danger: act.danger, Back: link(act.kind, name),
		Command: "caractrl " + act.command + " " + name, Key: rand.Text(), Seen: seenOf(m), Problem: problem, object: m, query: r.Form,
	}
	if q.query == nil {
		q.query = r.URL.Query()
	}
	if act.ask != nil {
		if err := act.ask(r.Context(), u.api, q); err != nil {
			return err
		}
	}
	for i := range q.Fields { // what the person typed stays when the action failed
		if v := q.query.Get(q.Fields[i].Name); v != "" {
			q.Fields[i].Value = v
		}
	}
	return u.document(w, r, status, view{title: act.label + " " + name, nav: strings.ToLower(act.kind) + "s", template: "question", data: q})
}

// do carries an action out. A second request with the same key does nothing.
func (u *UI) do(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return api.BadRequest("read the form: %v", err)
	}
	act, m, err := u.find(r)
	back := link(act.kind, r.PathValue("name")) + "?done=" + act.name
	key := actorOf(r).Session + "/" + r.PostFormValue("key")
	if !u.sent.first(key) {
		http.Redirect(w, r, back, http.StatusSeeOther)
		return nil
	}
	if err != nil {
		u.sent.forget(key)
		return err
	}
	seen := r.PostFormValue("seen")
	if seen != seenOf(m) {
		u.sent.forget(key)
		return u.showQuestion(w, r, act, m, http.StatusConflict, "This "+strings.ToLower(act.kind)+" has changed since you looked. Nothing was done. Look at what will happen now, then decide again.")
	}
	ctx := r.Context()
	if act.kind == api.KindProject {
		ctx = metadata.AppendToOutgoingContext(ctx, objects.HeaderIfSeen, seen)
	}
	if err := act.run(ctx, u.api, m, r.PostForm); err != nil {
		u.sent.forget(key)
		p := api.ProblemOf(api.Wire(err))
		return u.showQuestion(w, r, act, m, int(p.GetStatus()), p.GetDetail())
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// actionNamed returns the action with a name.
func actionNamed(name string) (act action, ok bool) {
	all := actions()
	i := slices.IndexFunc(all, func(a action) bool { return a.name == name })
	if i < 0 {
		return action{}, false
	}
	return all[i], true
}

// done is what the page says after an action, and where the action can be taken back.
type done struct{ Text, Undo string }

// doneOf returns what the page says after the action of a request.
func (u *UI) doneOf(r *http.Request) done {
	act, ok := actionNamed(r.URL.Query().Get("done"))
	if !ok {
		return done{}
	}
	out, name := done{Text: act.done}, r.PathValue("name")
	if undo, ok := actionNamed(act.undo); ok && (views{u.api, u.MayCall}).may(actorOf(r), undo.method, name) {
		out.Undo = doLink(undo.name, name)
	}
	return out
}

// doLink returns the address of an action's question.
func doLink(action, name string) string { return Prefix + "do/" + action + "/" + url.PathEscape(name) }

// onceOnly remembers the keys of the last forms that were sent.
type onceOnly struct {
	mu   sync.Mutex
	keys []string // the oldest first
}

const maxKeys = 4096

// first remembers a key and reports whether it is new.
func (o *onceOnly) first(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Contains(o.keys, key) {
		return false
	}
	o.keys = append(o.keys[max(0, len(o.keys)+1-maxKeys):], key)
	return true
}

// forget lets a form be sent again, because its action failed.
func (o *onceOnly) forget(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys = slices.DeleteFunc(o.keys, func(other string) bool { return other == key })
}

// terms are the reason and the end of an override, for an object that a source owns.
func terms(f url.Values) (*carav1.OverrideTerms, error) {
	t := &carav1.OverrideTerms{Reason: strings.TrimSpace(f.Get("reason"))}
	switch end := f.Get("for"); end {
	case "":
	case untilNextChange:
		t.UntilNextChange = true
	default:
		d, err := time.ParseDuration(end)
		if err != nil || d <= 0 {
			return nil, api.Invalid("the form", api.Field("for", "is %q; write a duration such as 2h or 72h", end))
		}
		t.For = durationpb.New(d)
	}
	return t, nil
}

const untilNextChange = "next change"

// ownedTerms are the terms of an override that a change of a project needs; nil if no source owns the project.
func ownedTerms(m proto.Message, f url.Values) (*carav1.OverrideTerms, error) {
	if !owned(m.(*carav1.Project)) {
		return nil, nil //nolint:nilnil // there is nothing to override
	}
	return terms(f)
}

// termFields ask for the reason and the end of an override.
func termFields() []field {
	return []field{
		{Name: "reason", Label: "Reason", Flag: "--reason", Required: true, Help: "Everybody sees it beside the project."},
		{Name: "for", Label: "Until", Flag: "--for", Value: "2h", Options: []option{
			{"1h", "1 hour"},
			{"2h", "2 hours"},
			{"8h", "8 hours"},
			{"24h", "1 day"},
			{"72h", "3 days"},
			{"168h", "1 week"},
			{untilNextChange, "the next change in git"},
		}},
	}
}
