package certs

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/caravanserai/cara/certs/dns01"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// dnsCleanUp is how long the removal of a record may take.
const dnsCleanUp = 30 * time.Second

// solver lets the agents answer the challenges of one order.
type solver struct {
	server  carav1.CertificateServiceClient
	host    string
	leadsTo []string // nodes; nil if unknown
}

// Present returns when the agents that the host leads to have confirmed that they answer.
func (s solver) Present(ctx context.Context, c acme.Challenge) error {
	resp, err := s.server.PresentChallenge(ctx, &carav1.PresentChallengeRequest{
		Host: s.host, Token: c.Token, KeyAuthorization: c.KeyAuthorization, Nodes: s.leadsTo,
	})
	if err != nil {
		return err
	}
	if why := Answering(resp.GetReady(), resp.GetMissing(), s.leadsTo); why != "" {
		return notReady{why}
	}
	return nil
}

// CleanUp ends the answers. It does so also after the order was cancelled.
func (s solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpAfter)
	defer cancel()
	_, err := s.server.RemoveChallenge(ctx, &carav1.RemoveChallengeRequest{Token: c.Token})
	return err
}

// dnsSolver publishes the challenges of one order in DNS.
type dnsSolver struct {
	provider dns01.Provider
	check    *dns01.Checker
	log      *slog.Logger
}

func recordOf(c acme.Challenge) dns01.Record {
	return dns01.Record{Name: strings.ToLower(c.DNS01TXTRecordName()), Value: c.DNS01KeyAuthorization()}
}

// Present publishes the record.
func (s dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	return forPeople(ctx, s.provider.Present(ctx, recordOf(c)))
}

// Wait returns when the authority can find the record.
func (s dnsSolver) Wait(ctx context.Context, c acme.Challenge) error {
	return forPeople(ctx, s.check.Wait(ctx, recordOf(c)))
}

// CleanUp removes the record. It does so also after the order was cancelled. A record that stays does no harm.
func (s dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dnsCleanUp)
	defer cancel()
	r := recordOf(c)
	err := s.provider.CleanUp(ctx, r)
	if err != nil {
		s.log.Warn("TXT record not removed", "name", r.Name, "error", err)
	}
	return err
}

// forPeople returns an error whose text is the problem.
func forPeople(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return notReady{err.Error()}
}
