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
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// MaxWebhook limits the body of a delivery, in bytes.
	MaxWebhook     = 1 << 20
	webhookTimeout = 10 * time.Second
	// maxWebhooks is how many deliveries are read concurrently. maxWebhooksEach is the limit for one address. Each may hold
	// 1 MiB.
	maxWebhooks, maxWebhooksEach = 16, 4
	webhookKey                   = "secret"
	maxName                      = 128 // bytes of a source's name in a log line
)

// provider describes how a kind of git server signs and names its deliveries. The content of a delivery is not used: the
// probe finds the revision.
type provider struct {
	// signature is the header with the HMAC-SHA256 in hex after prefix. If it is empty, the header token contains the
	// secret itself.
	signature, prefix, token string
	// event and id are headers. If there is no id, otherID identifies the delivery.
	event, id, otherID string
	// events are the events that may mean a new revision.
	events []string
}

// providers by their names in the contract. The headers are documented by the vendors.
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
	api.ProviderGitea: { // also Forgejo, which sends the same headers
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

// authentic reports whether the sender of a delivery knows the secret. It takes constant time.
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

// webhook handles a delivery for a source. The signature authenticates it.
func (s *server) webhook(w http.ResponseWriter, r *http.Request) {
	delivery, err := s.deliver(w, r)
	switch over, _ := errors.AsType[*http.MaxBytesError](err); {
	case over != nil:
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

// deliver checks a delivery and sends its hint. An unauthenticated caller gets the same answer for every error: an unknown
// source, a source without webhooks, a missing secret, or a wrong signature. The log has the reason. An unsigned delivery
// does not change the last delivery in the source's status.
func (s *server) deliver(w http.ResponseWriter, r *http.Request) (*carav1.Delivery, error) {
	if err := s.DB.Cache.Filled(r.Context()); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	refuse := func(why string) error { //nolint:contextcheck // the request carries it
		if left, ok := s.Refusals.Say(s.DB.Now()); ok {
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

// signed reports whether a request has a signature in the form of any provider. The check is cheap, and a request without
// one is not read.
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

// readDelivery reads a body with limits on time and memory, because anyone can send one. If a delivery waits too long for
// its turn, the sender must retry, as git servers do.
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
	if over, _ := errors.AsType[*http.MaxBytesError](err); err != nil && over == nil {
		return nil, api.BadRequest("read the delivery: %v", err)
	}
	return body, err
}

// webhookOf finds the source with this name that accepts deliveries, and their secret. why is what is missing, for the
// operators of the source.
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

// webhookSecret returns the secret that signs the source's deliveries. An empty secret is an error, because anyone could
// sign with it.
func (s *server) webhookSecret(source *carav1.Source) ([]byte, error) {
	ref := source.GetSpec().GetWebhook().GetSecretRef()
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, ref)
	if !ok {
		return nil, api.BadState("secret %q of spec.webhook.secretRef does not exist: create it", ref)
	}
	value, err := rules.SecretValue(s.DB.Vault, secret, webhookKey)
	if err == nil && len(value) == 0 {
		err = api.BadState("secret %q has nothing under the key %q: set it", ref, webhookKey)
	}
	return value, err
}
