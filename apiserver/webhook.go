package apiserver

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
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxWebhook     = 1 << 20
	webhookTimeout = 10 * time.Second
	maxWebhooks    = 16 // read side by side; each may hold 1 MiB
	webhookKey     = "secret"
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
	"GitHub": {
		signature: "X-Hub-Signature-256", prefix: "sha256=", event: "X-GitHub-Event", id: "X-GitHub-Delivery",
		events: []string{"push", "pull_request", "create", "delete", "release"},
	},
	"GitLab": {
		// X-Gitlab-Event-UUID is shared by the hooks that one event triggers. Idempotency-Key stays the same when a
		// delivery is retried.
		token: "X-Gitlab-Token", event: "X-Gitlab-Event", id: "Idempotency-Key", otherID: "X-Gitlab-Event-UUID",
		events: []string{"Push Hook", "Tag Push Hook", "Merge Request Hook", "Release Hook"},
	},
	"Gitea": { // and Forgejo, which sends the same headers
		signature: "X-Gitea-Signature", event: "X-Gitea-Event", id: "X-Gitea-Delivery",
		events: []string{"push", "pull_request", "create", "delete", "release"},
	},
	"Bitbucket": {
		signature: "X-Hub-Signature", prefix: "sha256=", event: "X-Event-Key", id: "X-Request-UUID",
		events: []string{
			"repo:push", "repo:refs_changed", "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled",
			"pr:opened", "pr:from_ref_updated", "pr:merged",
		},
	},
	"Generic": {signature: "X-Signature", prefix: "sha256=", event: "X-Event", id: "X-Delivery"},
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
func (s *Server) webhook(w http.ResponseWriter, r *http.Request) {
	delivery, err := s.deliver(w, r)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		writeProblem(w, &carav1.Problem{
			Title: "TooLarge", Status: http.StatusRequestEntityTooLarge,
			Detail: "the delivery is larger than " + sizeText(maxWebhook) + ": push fewer commits at once; the next poll finds these",
		})
	case err != nil:
		writeProblem(w, api.ProblemOf(wireError(err)))
	default:
		w.WriteHeader(http.StatusAccepted)
		writeText(w, delivery.GetResult()+"\n")
	}
}

func (s *Server) deliver(w http.ResponseWriter, r *http.Request) (*carav1.Delivery, error) {
	if err := s.filled(r.Context()); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	source, p, err := s.webhookOf(name)
	if err != nil {
		return nil, err
	}
	d := &carav1.Delivery{
		Time: timestamppb.New(s.cfg.Now()), Event: bounded(r.Header.Get(p.event), 64), Id: bounded(cmp.Or(r.Header.Get(p.id), r.Header.Get(p.otherID)), 128),
	}
	defer func() { s.hints.note(name, d) }()
	refuse := func(result string, err error) (*carav1.Delivery, error) {
		d.Result = "Refused: " + result
		return nil, err
	}
	secret, err := s.webhookSecret(source)
	if err != nil {
		return refuse(api.ProblemOf(err).GetDetail(), api.Errorf(codes.FailedPrecondition, api.TitleConflict,
			"source %q cannot check deliveries: its status says why", name))
	}
	body, err := s.readDelivery(w, r)
	if err != nil {
		return refuse("it could not be read", err)
	}
	if !p.authentic(r.Header, body, secret) {
		return refuse("the signature does not match", api.Errorf(codes.Unauthenticated, api.TitleUnauthenticated,
			"the delivery is not signed with the secret of source %q: is the same one set on both sides?", name))
	}
	switch {
	case source.GetMetadata().GetDeletionTimestamp() != nil:
		d.Result = "Ignored: the source is being deleted"
	case source.GetSpec().GetSuspend():
		d.Result = "Ignored: the source is suspended"
	case p.events != nil && !slices.Contains(p.events, d.GetEvent()):
		d.Result = fmt.Sprintf("Ignored: %q brings nothing new", d.GetEvent())
	case s.hints.seen(name, d.GetId()):
		d.Result = "Duplicate"
	default:
		d.Result = "Accepted"
		s.hints.tell(name, d)
	}
	return d, nil
}

// readDelivery reads a body in bounded time and memory: strangers send them too. Who waits too long for its turn is to
// come again; git servers do.
func (s *Server) readDelivery(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.Context(), webhookTimeout)
	defer cancel()
	select {
	case s.hints.reading <- struct{}{}:
		defer func() { <-s.hints.reading }()
	case <-ctx.Done():
		return nil, api.Errorf(codes.Unavailable, api.TitleUnavailable, "too many deliveries are being read: send it again later")
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(webhookTimeout)); err != nil {
		return nil, api.Errorf(codes.Internal, api.TitleInternal, "bound the time to read the delivery: %v", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
	var over *http.MaxBytesError
	if err != nil && !errors.As(err, &over) {
		return nil, api.Errorf(codes.InvalidArgument, api.TitleInvalid, "read the delivery: %v", err)
	}
	return body, err
}

// webhookOf finds the source that takes deliveries under a name. One that takes none is as good as none to a stranger.
func (s *Server) webhookOf(name string) (*carav1.Source, provider, error) {
	source, ok := lookup[*carav1.Source](s.cache, name)
	p, known := providers[source.GetSpec().GetWebhook().GetProvider()]
	if !ok || !known {
		return nil, provider{}, api.Errorf(codes.NotFound, api.TitleNotFound, "there is no source %q that takes webhooks", name)
	}
	return source, p, nil
}

// webhookSecret is what the source's deliveries are signed with. The error is for the source's own people.
func (s *Server) webhookSecret(source *carav1.Source) ([]byte, error) {
	ref := source.GetSpec().GetWebhook().GetSecretRef()
	secret, ok := lookup[*carav1.Secret](s.cache, ref)
	if !ok {
		return nil, api.Errorf(codes.FailedPrecondition, api.TitleConflict, "secret %q of spec.webhook.secretRef does not exist: create it", ref)
	}
	value, err := s.secretValue(secret, webhookKey)
	if err == nil && len(value) == 0 {
		err = api.Errorf(codes.FailedPrecondition, api.TitleConflict, "secret %q has nothing under the key %q: set it", ref, webhookKey)
	}
	return value, err
}

// bounded is text from outside as it can be stored and shown: printable, valid, at most so many bytes.
func bounded(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// WatchHints streams the sources that a delivery has spoken of since the stream began. What comes faster than it is
// read is one hint for each source.
func (s sourceService) WatchHints(_ *empty, stream carav1.SourceService_WatchHintsServer) error {
	sub := s.hints.subscribe()
	defer s.hints.unsubscribe(sub)
	for {
		for source, d := range sub.take() {
			if err := stream.Send(&carav1.Hint{Source: source, Delivery: d}); err != nil {
				return err
			}
		}
		select {
		case <-sub.wake:
		case <-s.draining:
			return errDraining()
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}
