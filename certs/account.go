package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// accountRetry is how long no host asks for an account after that has failed. Authorities limit new accounts more than orders.
const accountRetry = time.Minute

const unreadableKey = "the key of the account at the authority cannot be read: creating a new account"

// accounts keeps the cluster's account at one authority. The first attempt creates it and stores it.
type accounts struct {
	server           carav1.CertificateServiceClient
	directory, email string
	external         ExternalAccount
	now              func() time.Time
	log              *slog.Logger

	mu       sync.Mutex // held while an account is created, so that there is only one
	account  acme.Account
	failed   error
	failedAt time.Time
}

// accountName returns the name of an account in the cluster's store. An account that is bound to another one with the id of a key has
// a name of its own.
func accountName(directory, email, keyID string) string {
	text := directory + "\n" + email
	if keyID != "" {
		text += "\n" + keyID
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// get returns the account. It creates one if the cluster has none, or if the stored one cannot be read.
func (a *accounts) get(ctx context.Context, client *acme.Client) (acme.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.account.Location != "" {
		return a.account, nil
	}
	if a.failed != nil && a.now().Sub(a.failedAt) < accountRetry {
		return acme.Account{}, a.failed
	}
	account, err := a.open(ctx, client)
	if err != nil {
		if ctx.Err() == nil {
			a.failed, a.failedAt = err, a.now()
		}
		return acme.Account{}, err
	}
	a.account, a.failed = account, nil
	return account, nil
}

// forget makes the next attempt register the account again, because the authority does not know it any more.
func (a *accounts) forget(location string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.account.Location == location {
		a.log.Warn("the authority does not know the cluster's account: registering it again", "directory", a.directory)
		a.account = acme.Account{}
	}
}

// open returns the stored account, after the authority has confirmed it, or registers a new one. a.mu is held.
func (a *accounts) open(ctx context.Context, client *acme.Client) (acme.Account, error) {
	name := accountName(a.directory, a.email, a.external.KeyID)
	stored, err := a.server.GetAcmeAccount(ctx, &carav1.GetRequest{Name: name})
	switch {
	case err == nil, api.IsNotFound(err):
	case api.Code(err) == codes.DataLoss: // its key cannot be opened: a new account serves as well
		a.log.Warn(unreadableKey, "directory", a.directory, "error", err)
		stored = &carav1.AcmeAccount{Metadata: &carav1.ObjectMeta{Name: name, ResourceVersion: syntax.Everything}}
	default:
		return acme.Account{}, fmt.Errorf("read the account: %w", err)
	}
	account, err := a.register(ctx, client, stored.GetKey())
	if err != nil || account.Location == stored.GetLocation() {
		return account, err
	}
	a.log.Info("account created at the authority", "directory", a.directory, "account", account.Location)
	return account, a.store(ctx, name, stored.GetMetadata().GetResourceVersion(), account)
}

// register returns the account that the authority has for a key. It creates the account if there is none. Without a key that
// can be read, it creates one.
func (a *accounts) register(ctx context.Context, client *acme.Client, key []byte) (acme.Account, error) {
	account := acme.Account{TermsOfServiceAgreed: true}
	if a.email != "" {
		account.Contact = []string{"mailto:" + a.email}
	}
	var err error
	if len(key) > 0 {
		if account.PrivateKey, err = decodeKey(key); err != nil {
			a.log.Warn(unreadableKey, "directory", a.directory, "error", err)
		}
	}
	if account.PrivateKey == nil {
		if account.PrivateKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return acme.Account{}, fmt.Errorf("generate a key: %w", err)
		}
	}
	if a.external.KeyID != "" {
		if err := account.SetExternalAccountBinding(ctx, client, acme.EAB{KeyID: a.external.KeyID, MACKey: a.external.Key}); err != nil {
			return acme.Account{}, fmt.Errorf("bind the account: %w", err)
		}
	}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return acme.Account{}, err
	}
	if account.Location == "" {
		return acme.Account{}, errors.New("the authority sent no address of the account")
	}
	return account, nil
}

func (a *accounts) store(ctx context.Context, name, replaces string, account acme.Account) error {
	key, err := encodeKey(account.PrivateKey)
	if err != nil {
		return err
	}
	_, err = a.server.PutAcmeAccount(ctx, &carav1.AcmeAccount{
		Metadata:  &carav1.ObjectMeta{Name: name, ResourceVersion: replaces},
		Directory: a.directory, Email: a.email, Location: account.Location, Key: key,
	})
	if err != nil {
		return fmt.Errorf("store the account: %w", err)
	}
	return nil
}
