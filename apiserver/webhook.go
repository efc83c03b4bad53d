package apiserver

import (
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

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxWebhook     = 1 << 20
	webhookTimeout = 10 * time.Second
	maxWebhooks    = 16 // read side by side; each may hold 1 MiB
)

// provider is how one sort of git server signs and names its deliveries. The body is signed, never believed: which
// revision there is, the probe finds out.
type provider struct {
	// signature is the header of the HMAC-SHA256 in hex, prefix what stands before it. Without one the header token
	// holds the secret itself.
	signature, prefix, token string
	event, id                string
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
		token: "X-Gitlab-Token", event: "X-Gitlab-Event", id: "X-Gitlab-Event-UUID",
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
	if err != nil {
		writeProblem(w, api.ProblemOf(err))
		return
	}
	w.WriteHeader(http.StatusAccepted)
	writeText(w, delivery.GetResult()+"\n")
}

func (s *Server) deliver(w http.ResponseWriter, r *http.Request) (*carav1.Delivery, error) {
	name := r.PathValue("name")
	source, p, secret, err := s.webhookOf(name)
	if err != nil {
		return nil, err
	}
	select {
	case s.hints.reading <- struct{}{}:
		defer func() { <-s.hints.reading }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(webhookTimeout)); err != nil {
		return nil, api.Errorf(codes.Internal, api.TitleInternal, "read the delivery: %v", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, api.Errorf(codes.InvalidArgument, api.TitleInvalid, "the delivery is larger than %d MiB: send fewer commits at once, the next poll finds them", maxWebhook>>20)
	case err != nil:
		return nil, api.Errorf(codes.InvalidArgument, api.TitleInvalid, "read the delivery: %v", err)
	}
	d := &carav1.Delivery{
		Time: timestamppb.New(s.cfg.Now()), Event: bounded(r.Header.Get(p.event), 64), Id: bounded(r.Header.Get(p.id), 128),
	}
	if !p.authentic(r.Header, body, secret) {
		d.Result = "Refused: the signature does not match"
		s.hints.note(name, d)
		return nil, api.Errorf(codes.Unauthenticated, api.TitleUnauthenticated,
			"the delivery is not signed with the secret of source %q: is the same one set on both sides?", name)
	}
	switch {
	case s.hints.seen(name, d.GetId()):
		d.Result = "Duplicate"
	case source.GetSpec().GetSuspend():
		d.Result = "Ignored: the source is suspended"
	case p.events != nil && !slices.Contains(p.events, d.GetEvent()):
		d.Result = fmt.Sprintf("Ignored: %q brings nothing new", d.GetEvent())
	default:
		d.Result = "Accepted"
		defer s.hints.tell(name, d)
	}
	s.hints.note(name, d)
	return d, nil
}

// webhookOf finds who may send deliveries for a source. A source that takes none is as good as none to a stranger.
func (s *Server) webhookOf(name string) (*carav1.Source, provider, []byte, error) {
	source, ok := lookup[*carav1.Source](s.cache, name)
	hook := source.GetSpec().GetWebhook()
	p, known := providers[hook.GetProvider()]
	if !ok || !known {
		return nil, provider{}, nil, api.Errorf(codes.NotFound, api.TitleNotFound, "there is no source %q that takes webhooks", name)
	}
	secret, ok := lookup[*carav1.Secret](s.cache, hook.GetSecretRef())
	if !ok {
		return nil, p, nil, api.Errorf(codes.FailedPrecondition, api.TitleConflict,
			"source %q names secret %q in spec.webhook.secretRef, which does not exist: create it", name, hook.GetSecretRef())
	}
	value, err := s.secretValue(secret, "secret")
	if err == nil && len(value) == 0 {
		err = api.Errorf(codes.FailedPrecondition, api.TitleConflict, "secret %q has no value under the key \"secret\": set it", hook.GetSecretRef())
	}
	return source, p, value, err
}

func bounded(text string, most int) string {
	text = strings.ToValidUTF8(text, "")
	return text[:min(len(text), most)]
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
