package rest

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// MaxWebhook bounds the body of a delivery, in bytes.
	MaxWebhook     = 1 << 20
	webhookTimeout = 10 * time.Second
	// maxWebhooks is how many are read side by side, and maxWebhooksEach how many of one address. Each may hold 1 MiB.
	maxWebhooks, maxWebhooksEach = 16, 4
	webhookKey                   = "secret"
	maxName                      = 128 // bytes of a source's name in a line of the log
)

// provider is how one sort of git server signs and names its deliveries. The body is signed, never believed: which
// revision there is, the probe finds out.
type provider struct {
	// signature is the header of the HMAC-SHA256 in hex, prefix what stands before it. Without one the header token
	// holds the secret itself.
	signature, prefix, token string
	// event and id are headers. Without id, otherID names the delivery.
	event, id, otherID string
	// events that may bring something new.
	events []string
}

// providers by their names in the contract. The headers are those of the vendors' webhook documentation.
var providers = map[string]provider{ //nolint:gochecknoglobals // a table that never changes
	api.ProviderGitHub: {
		signature: "X-Hub-Signature-256", prefix: "sha256=", event: "X-GitHub-Event", id: "X-GitHub-Delivery",
		events: []string{"push", "pull_request", "create", "delete", "release"},
	},
	api.ProviderGitLab: {
		// X-Gitlab-Event-UUID is shared by the hooks that one event triggers. Idempotency-Key stays the same when a
		// delivery is retried.
		token: "X-Gitlab-Token", event: "X-Gitlab-Event", id: "Idempotency-Key", otherID: "X-Gitlab-Event-UUID",
		events: []string{"Push Hook", "Tag Push Hook", "Merge Request Hook", "Release Hook"},
	},
	api.ProviderGitea: { // and Forgejo, which sends the same headers
		signature: "X-Gitea-Signature", event: "X-Gitea-Event", id: "X-Gitea-Delivery",
		events: []string{"push", "pull_request", "create", "delete", "release"},
	},
	api.ProviderBitbucket: {
		signature: "X-Hub-Signature", prefix: "sha256=", event: "X-Event-Key", id: "X-Request-UUID",
		events: []string{
			"repo:push", "repo:refs_changed", "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled",
			"pr:opened", "pr:from_ref_updated", "pr:merged",
		},
	},
	api.ProviderGeneric: {signature: "X-Signature", prefix: "sha256=", event: "X-Event", id: "X-Delivery"},
}

// authentic says whether a delivery was sent by who knows the secret. Both ways take the same time whatever is wrong.
func (p provider) authentic(h http.Header, body, secret []byte) bool {
	if p.signature == "" {
		have, want := sha256.Sum256([]byte(h.Get(p.token))), sha256.Sum256(secret)
		return subtle.ConstantTimeCompare(have[:], want[:]) == 1
	}
	text, ok := strings.CutPrefix(h.Get(p.signature), p.prefix)
	have, err := hex.DecodeString(text)
	if !ok || err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(have, mac.Sum(nil))
}

// webhook takes a delivery for a source. Its signature is its identity.
func (s *server) webhook(w http.ResponseWriter, r *http.Request) {
	delivery, err := s.deliver(w, r)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		WriteProblem(w, &carav1.Problem{
			Title: api.TitleTooLarge, Status: http.StatusRequestEntityTooLarge,
			Detail: "the delivery is larger than " + text.Size(MaxWebhook) + ": push fewer commits at once; the next poll finds these",
		})
	case err != nil:
		WriteProblem(w, api.ProblemOf(api.Wire(err)))
	default:
		w.WriteHeader(http.StatusAccepted)
		writeText(w, delivery.GetResult()+"\n")
	}
}

// deliver checks a delivery and passes it on. Strangers hear the same whatever is wrong: that there is no such source,
// that it takes no webhooks, that its secret is missing, or that the signature does not match. The log has the reason.
// Nothing that is not signed changes what the source's status says of its last delivery.
func (s *server) deliver(w http.ResponseWriter, r *http.Request) (*carav1.Delivery, error) {
	if err := s.DB.Cache.Filled(r.Context()); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	refuse := func(why string) error { //nolint:contextcheck // the request carries it
		if left, ok := s.Refusals.Take(s.DB.Now()); ok {
			s.DB.Logger.Info("delivery refused", "source", text.Printable(name, maxName), "client", admission.ClientAddr(r.Context()), "reason", why, "left_out", left)
		}
		return api.Unauthenticated("the delivery is not signed with the secret of a source of this name: compare the source's name, provider and secret with those of the webhook")
	}
	if !signed(r.Header) {
		return nil, refuse("there is no signature")
	}
	source, p, secret, why := s.webhookOf(name)
	body, err := s.readDelivery(w, r)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return nil, refuse(why)
	}
	if !p.authentic(r.Header, body, secret) {
		return nil, refuse("the signature does not match")
	}
	d := &carav1.Delivery{
		Time: timestamppb.New(s.DB.Now()), Event: text.Printable(r.Header.Get(p.event), 64), Id: text.Printable(cmp.Or(r.Header.Get(p.id), r.Header.Get(p.otherID)), 128),
	}
	defer func() { s.Hints.Note(name, d) }()
	switch {
	case source.GetMetadata().GetDeletionTimestamp() != nil:
		d.Result = api.DeliveryIgnored + ": the source is being deleted"
	case source.GetSpec().GetSuspend():
		d.Result = api.DeliveryIgnored + ": the source is suspended"
	case p.events != nil && !slices.Contains(p.events, d.GetEvent()):
		d.Result = fmt.Sprintf("%s: %q brings nothing new", api.DeliveryIgnored, d.GetEvent())
	case s.Hints.Seen(name, d.GetId()):
		d.Result = api.DeliveryDuplicate
	default:
		d.Result = api.DeliveryAccepted
		s.Hints.Tell(name, d)
	}
	return d, nil
}

// signed says whether a request has a signature of the form that one of the providers sends. It costs nothing to check,
// and what has none is not read.
func signed(h http.Header) bool {
	for _, p := range providers {
		if p.signature == "" {
			if h.Get(p.token) != "" {
				return true
			}
			continue
		}
		text, ok := strings.CutPrefix(h.Get(p.signature), p.prefix)
		if sum, err := hex.DecodeString(text); ok && err == nil && len(sum) == sha256.Size {
			return true
		}
	}
	return false
}

// readDelivery reads a body in bounded time and memory: strangers send them too. Who waits too long for its turn is to
// come again; git servers do.
func (s *server) readDelivery(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.Context(), webhookTimeout)
	defer cancel()
	var from netip.Prefix
	if v := admission.VisitOf(r.Context()); v != nil {
		from = v.From
	}
	if err := s.deliveries.Take(ctx, from); err != nil {
		return nil, api.Unavailable("too many deliveries are being read: send it again later")
	}
	defer s.deliveries.Done(from)
	conn, until := http.NewResponseController(w), time.Now().Add(webhookTimeout)
	if err := errors.Join(conn.SetReadDeadline(until), conn.SetWriteDeadline(until.Add(webhookTimeout))); err != nil {
		return nil, api.Internal("bound the time to read the delivery: %v", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxWebhook))
	var over *http.MaxBytesError
	if err != nil && !errors.As(err, &over) {
		return nil, api.BadRequest("read the delivery: %v", err)
	}
	return body, err
}

// webhookOf finds the source that takes deliveries under a name, and what they are signed with. why is what is missing,
// for the source's own people.
func (s *server) webhookOf(name string) (source *carav1.Source, p provider, secret []byte, why string) {
	source, ok := state.Get[*carav1.Source](s.DB.Cache, name)
	p, known := providers[source.GetSpec().GetWebhook().GetProvider()]
	switch {
	case !ok:
		return nil, p, nil, "there is no such source"
	case !known:
		return nil, p, nil, "the source takes no webhooks"
	}
	secret, err := s.webhookSecret(source)
	if err != nil {
		return nil, p, nil, api.ProblemOf(err).GetDetail()
	}
	return source, p, secret, ""
}

// webhookSecret is what the source's deliveries are signed with. An empty one would make everybody's signature right.
func (s *server) webhookSecret(source *carav1.Source) ([]byte, error) {
	ref := source.GetSpec().GetWebhook().GetSecretRef()
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, ref)
	if !ok {
		return nil, api.BadState("secret %q of spec.webhook.secretRef does not exist: create it", ref)
	}
	value, err := objects.SecretValue(s.DB.Vault, secret, webhookKey)
	if err == nil && len(value) == 0 {
		err = api.BadState("secret %q has nothing under the key %q: set it", ref, webhookKey)
	}
	return value, err
}
