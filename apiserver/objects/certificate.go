package objects

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// What the loop `certs` obtains is stored in three kinds of objects: a CertificateOrder for each host, a Certificate for each
// host that has one, and an AcmeAccount. The private keys are sealed like the values of Secrets. The key of a certificate
// leaves this process only to agents with public addresses, the key of an account only to the loop.

// ObtainedCertificate returns the id of the certificate of a host.
func ObtainedCertificate(host string) string { return "acme/" + host }

// ListCertificateOrders lists orders, sorted by host.
func (s Certificates) ListCertificateOrders(_ context.Context, req *carav1.ListRequest) (*carav1.ListCertificateOrdersResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, s.identified)
	return &carav1.ListCertificateOrdersResponse{Items: items, Metadata: meta}, err
}

// identified returns an order with what names its certificate at the authority. Orders of older servers lack that.
func (s Certificates) identified(o *carav1.CertificateOrder) *carav1.CertificateOrder {
	if o.GetNotAfter() == nil || len(o.GetSerial()) > 0 {
		return o
	}
	stored, _ := state.Get[*carav1.Certificate](s.DB.Cache, ObtainedCertificate(o.GetMetadata().GetName()))
	block, _ := pem.Decode(stored.GetChain())
	if block == nil {
		return o
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return o
	}
	o = proto.CloneOf(o)
	nameCertificate(o, leaf)
	return o
}

// nameCertificate notes what names a certificate at the authority.
func nameCertificate(out *carav1.CertificateOrder, leaf *x509.Certificate) {
	out.AuthorityKeyId, out.Serial = leaf.AuthorityKeyId, leaf.SerialNumber.Bytes()
}

// UpdateCertificate stores the result of an attempt, updates the projects of the host, and ends the challenges of the host.
func (s Certificates) UpdateCertificate(ctx context.Context, req *carav1.UpdateCertificateRequest) (*carav1.CertificateOrder, error) {
	host := req.GetHost()
	var out *carav1.CertificateOrder
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		old, err := replaced[*carav1.CertificateOrder](t, host, req.GetResourceVersion())
		if err != nil {
			return err
		}
		out = proto.CloneOf(req.GetOrder())
		out.Metadata = &carav1.ObjectMeta{Name: host, CreationTimestamp: old.GetMetadata().GetCreationTimestamp()}
		if out.Metadata.CreationTimestamp == nil {
			out.Metadata.CreationTimestamp = timestamppb.New(t.Now)
		}
		if req.GetAdvice() {
			return s.putAdvice(t, old, out)
		}
		if len(req.GetChain()) == 0 {
			keepCertificate(out, old)
		} else if err := putCertificate(t, out, req.GetChain(), req.GetKey()); err != nil {
			return err
		}
		t.Put(out)
		dropChallenges(t, host)
		tellCertificate(t, old, out, len(req.GetChain()) > 0)
		return nil
	})
	return out, err
}

// putAdvice makes out the old order with only what the authority says about the renewal, and stores it.
func (s Certificates) putAdvice(t *state.Tx, old, out *carav1.CertificateOrder) error {
	if old.GetNotAfter() == nil || out.GetRenewAt() == nil {
		return api.Invalid("the advice", api.Field("order.renewAt", "is for a certificate, and the host has none"))
	}
	at, recalled, page := out.GetRenewAt(), out.GetRecalled(), out.GetRecallUrl()
	proto.Reset(out)
	proto.Merge(out, s.identified(old))
	out.RenewAt, out.Recalled, out.RecallUrl = at, recalled, page
	t.Put(out)
	tellCertificate(t, old, out, false)
	return nil
}

func tellCertificate(t *state.Tx, old, now *carav1.CertificateOrder, issued bool) {
	typ, reason, message := certificateEvent(old, now, issued)
	rules.TellCertificate(t, now.GetMetadata().GetName(), typ, reason, message)
}

// replaced returns the object that an update replaces, or nil. want is the resourceVersion in the update, or empty if there is no
// object, so that a late write of a former leader changes nothing. `*` replaces any version.
func replaced[T proto.Message](t *state.Tx, name, want string) (T, error) {
	old, ok := state.Read[T](t, name)
	if want == syntax.Everything || want == api.Meta(old).GetResourceVersion() && ok == (want != "") {
		return old, nil
	}
	var none T
	return none, api.Conflict("%s %q has changed since it was read: read it again", state.KindOf[T](), name)
}

// keepCertificate makes a failed attempt keep what is known about the certificate.
func keepCertificate(out, old *carav1.CertificateOrder) {
	out.Issuer, out.NotBefore, out.NotAfter, out.RenewAt = old.GetIssuer(), old.GetNotBefore(), old.GetNotAfter(), old.GetRenewAt()
	out.CertificateDirectory, out.AuthorityKeyId, out.Serial = old.GetCertificateDirectory(), old.GetAuthorityKeyId(), old.GetSerial()
	out.Recalled, out.RecallUrl = old.GetRecalled(), old.GetRecallUrl()
}

// putCertificate checks and stores a new certificate, and notes in the order what is in it.
func putCertificate(t *state.Tx, out *carav1.CertificateOrder, chain, key []byte) error {
	if t.Vault == nil {
		return rules.ErrNoIdentity()
	}
	host := out.GetMetadata().GetName()
	pair, err := api.ParseCertificate(chain, key)
	if err != nil {
		return api.Invalid("the certificate", api.Field("chain", "%v", err))
	}
	if err := pair.Leaf.VerifyHostname(host); err != nil {
		return api.Invalid("the certificate", api.Field("chain", "is not for the host %s", host))
	}
	if !t.Now.Before(pair.Leaf.NotAfter) {
		return api.Invalid("the certificate", api.Field("chain", "ended at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339)))
	}
	out.Issuer = issuerName(pair.Leaf)
	out.NotBefore, out.NotAfter = timestamppb.New(pair.Leaf.NotBefore), timestamppb.New(pair.Leaf.NotAfter)
	nameCertificate(out, pair.Leaf)
	out.Recalled, out.RecallUrl = false, ""
	id := ObtainedCertificate(host)
	t.Write(state.Key(state.KindCertificate, id), &carav1.Certificate{
		Id: id, Names: []string{host}, Chain: chain, Key: t.Vault.Seal(state.CertificateSeal(id), key), NotAfter: out.GetNotAfter(),
	})
	return nil
}

const maxIssuer = 200 // bytes

func issuerName(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if len(leaf.Issuer.Organization) > 0 {
		name = leaf.Issuer.Organization[0] + " " + name
	}
	return text.Printable(name, maxIssuer)
}

// certificateEvent returns the event of a change of an order. Its reason is empty if people need not know the change.
func certificateEvent(old, now *carav1.CertificateOrder, issued bool) (api.EventType, api.Reason, string) {
	host := now.GetMetadata().GetName()
	switch {
	case issued && old.GetNotAfter() == nil:
		return api.EventNormal, api.ReasonCertificateIssued, certificateText(host, now)
	case issued:
		return api.EventNormal, api.ReasonCertificateRenewed, certificateText(host, now)
	case !proto.Equal(old.GetNextTry(), now.GetNextTry()):
		return api.EventWarning, api.ReasonCertificateFailed, host + ": " + now.GetProblem()
	case now.GetRecalled() && !old.GetRecalled():
		return api.EventWarning, api.ReasonCertificateRecalled, host + ": " + rules.RecallText(now)
	}
	return "", "", ""
}

func certificateText(host string, o *carav1.CertificateOrder) string {
	return fmt.Sprintf("%s has a certificate from %s until %s", host, o.GetIssuer(), o.GetNotAfter().AsTime().UTC().Format(time.RFC3339))
}

// dropChallenges removes the challenges of a host, also those that a killed server has left behind.
func dropChallenges(t *state.Tx, host string) {
	t.Seen.Ascend(state.KindChallenge, "", "", func(e *state.Entry) bool {
		if state.As[*carav1.Challenge](e.Message()).GetHost() == host {
			t.Remove(state.KindChallenge, e.Name)
		}
		return true
	})
}

// DeleteCertificate removes what is stored about a host that no project claims.
func (s Certificates) DeleteCertificate(ctx context.Context, req *carav1.DeleteCertificateRequest) (*emptypb.Empty, error) {
	host := req.GetHost()
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, ok := state.Read[*carav1.CertificateOrder](t, host); !ok {
			return nil
		}
		t.Remove(state.KindCertificateOrder, host)
		t.Remove(state.KindCertificate, ObtainedCertificate(host))
		dropChallenges(t, host)
		rules.TellCertificate(t, host, "", "", "")
		return nil
	})
	return &emptypb.Empty{}, err
}

// GetAcmeAccount returns an account with its key.
func (s Certificates) GetAcmeAccount(_ context.Context, req *carav1.GetRequest) (*carav1.AcmeAccount, error) {
	stored, ok := state.Get[*carav1.AcmeAccount](s.DB.Cache, req.GetName())
	switch {
	case !ok:
		return nil, api.NotFound("there is no account %q", req.GetName())
	case s.DB.Vault == nil:
		return nil, rules.ErrNoIdentity()
	}
	key, err := s.DB.Vault.Open(state.AccountSeal(req.GetName()), stored.GetKey())
	if err != nil {
		return nil, api.Errorf(codes.DataLoss, api.TitleInternal, "account %v", err)
	}
	out := proto.CloneOf(stored)
	out.Key = key
	return out, nil
}

// PutAcmeAccount stores an account.
func (s Certificates) PutAcmeAccount(ctx context.Context, req *carav1.AcmeAccount) (*carav1.AcmeAccount, error) {
	name := req.GetMetadata().GetName()
	if s.DB.Vault == nil {
		return nil, rules.ErrNoIdentity()
	}
	if name == "" || len(req.GetKey()) == 0 {
		return nil, api.Invalid("the account", api.Field("metadata.name", "and the key must be set"))
	}
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, err := replaced[*carav1.AcmeAccount](t, name, req.GetMetadata().GetResourceVersion()); err != nil {
			return err
		}
		next := proto.CloneOf(req)
		next.Metadata = &carav1.ObjectMeta{Name: name, CreationTimestamp: timestamppb.New(t.Now)}
		next.Key = t.Vault.Seal(state.AccountSeal(name), slices.Clone(req.GetKey()))
		t.Put(next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.GetAcmeAccount(ctx, &carav1.GetRequest{Name: name})
}

// tellWildcards updates the projects whose hosts are under a wildcard that a transaction has changed.
func (s Certificates) tellWildcards(ctx context.Context, tx state.Transaction) {
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if ch.Kind != state.KindCertificateOrder || !strings.HasPrefix(ch.Name, "*.") {
			continue
		}
		old, now := state.As[*carav1.CertificateOrder](ch.Old), state.As[*carav1.CertificateOrder](ch.New)
		issued := !proto.Equal(old.GetNotAfter(), now.GetNotAfter()) || !bytes.Equal(old.GetSerial(), now.GetSerial()) && len(old.GetSerial()) > 0
		s.eachProject(ctx, func(p *carav1.Project) bool { return s.under(p, ch.Name) }, func(t *state.Tx, p, _ *carav1.Project) {
			if now == nil {
				return
			}
			if typ, reason, message := certificateEvent(old, now, issued); reason != "" { // an attempt has ended
				rules.RecordEvent(t, rules.RefTo(p), typ, reason, message)
			}
		})
	}
}

// under reports whether a project has a host for which a wildcard stands, and wants a certificate from the authority for it.
func (s Certificates) under(p *carav1.Project, wildcard string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return api.AutoTLS(in) && api.WildcardOf(s.DB.Hosts.Template.Host(in.GetHost())) == wildcard
	})
}
