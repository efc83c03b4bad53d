package certs

import (
	"context"

	"github.com/mholt/acmez/v3/acme"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
