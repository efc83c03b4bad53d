package dispatch

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// secretCertificate returns the certificate of a Secret for those of the hosts that it has a name for, or nil if there is none.
func (s Values) secretCertificate(name string, hosts []string) *carav1.Certificate {
	if len(hosts) == 0 || !s.secretHasType(name, api.SecretTLS) {
		return nil
	}
	chain, okChain := s.value(name, api.TLSCertificateKey)
	key, okKey := s.value(name, api.TLSPrivateKey)
	if !okChain || !okKey {
		return nil
	}
	pair, err := api.ParseCertificate(chain, key)
	if err != nil {
		return nil // an older server stored it without a check
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return pair.Leaf.VerifyHostname(host) != nil })
	if len(hosts) == 0 {
		return nil
	}
	return &carav1.Certificate{Id: secretCertificate(name), Names: hosts, Chain: chain, Key: key, NotAfter: timestamppb.New(pair.Leaf.NotAfter)}
}

// storedCertificate returns a certificate that the server has obtained, with its key, or nil.
func (s Values) storedCertificate(id string) *carav1.Certificate {
	stored, ok := state.Get[*carav1.Certificate](s.DB.Cache, id)
	if !ok || s.DB.Vault == nil {
		return nil
	}
	key, err := s.DB.Vault.Open(state.CertificateSeal(id), stored.GetKey())
	if err != nil {
		s.DB.Logger.Error("certificate cannot be opened", "certificate", id, "error", err)
		return nil
	}
	out := proto.CloneOf(stored)
	out.Key = key
	return out
}

// passwordList returns the users of a Secret of type basicAuth, or nil.
func (s Values) passwordList(name string) *carav1.PasswordList {
	list, _ := rules.PasswordList(s.DB.Cache, s.DB.Vault, name)
	return list
}

func (s Values) secretHasType(name, kind string) bool {
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, name)
	return ok && secret.GetType() == kind
}
