package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest/sops"
)

// open opens the driver, or reopens it if the spec or its credentials changed.
func (p *pass) open(ctx context.Context) error {
	secrets, err := p.secrets(ctx)
	if err != nil {
		return err
	}
	if err := p.readKeys(secrets.GetDecryption()); err != nil {
		return err
	}
	secret := secrets.GetGit()
	id := SecretID(secret)
	if p.st.driver != nil && p.st.generation == p.src.Metadata.Generation && p.st.secret == id {
		return nil
	}
	p.st.close()
	opener := p.cfg.Git
	if p.src.Spec.GetDir() != nil {
		opener = p.cfg.Dir
	}
	if opener == nil {
		return Human(api.ReasonInvalidSpec, "this server reads no sources of this sort")
	}
	driver, err := safely(func() (Driver, error) { return opener.Open(p.src.Spec, secret) })
	if err != nil {
		return readError(ctx, err, "open the source")
	}
	p.st.driver, p.st.secret = driver, id
	if live, ok := driver.(Live); ok {
		p.watch(ctx, live)
	}
	return nil
}

// watch requests a pass whenever the source says that it has changed. It ends when the driver is closed.
func (p *pass) watch(ctx context.Context, live Live) {
	watching, stop := context.WithCancel(ctx)
	p.st.stopWatch = stop
	p.watches.Go(func() {
		name, st := p.src.Metadata.Name, p.st
		live.Watch(watching, func() { // Watch already batches events
			st.hints.soon()
			p.queue.Add(name)
		})
	})
}

// readKeys reads the keys that decrypt files.
func (p *pass) readKeys(values map[string][]byte) error {
	name := p.src.Spec.GetDecryption().GetSecretRef()
	if name == "" {
		return nil
	}
	keys, err := sops.NewKeys(name, values)
	if err != nil {
		return Human(api.ReasonInvalidSpec, "spec.decryption: %s", err)
	}
	p.keys, p.keysID = keys, SecretID(values)
	return nil
}

// secrets requests the credentials and the keys for each pass, because they may have been rotated.
func (p *pass) secrets(ctx context.Context) (*carav1.GetSourceSecretResponse, error) {
	name, keys := p.src.Spec.GetGit().GetSecretRef(), p.src.Spec.GetDecryption().GetSecretRef()
	if name == "" && keys == "" {
		return nil, nil
	}
	resp, err := p.client.GetSourceSecret(ctx, &carav1.GetSourceSecretRequest{Name: p.src.Metadata.Name})
	if err == nil {
		return resp, nil
	}
	switch api.Code(err) { //nolint:exhaustive // every other code is one of the request
	case codes.NotFound, codes.FailedPrecondition:
		if keys != "" {
			return nil, Human(api.ReasonAuthFailed, "%s", text.Clip(api.ProblemOf(err).GetDetail(), 1000)) // it names the Secret that is missing
		}
		return nil, Human(api.ReasonAuthFailed, "Secret %q, which spec.git.secretRef names, does not exist; create it with `caractrl apply`", name)
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unauthenticated:
		return nil, fmt.Errorf("get the Secrets of the source: %w", err) // the API cannot be reached, so a report would fail too
	}
	return nil, readError(ctx, err, "read the Secrets that the source names")
}

// SecretID returns a hash of the values of a Secret.
func SecretID(secret map[string][]byte) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(secret)) {
		fmt.Fprintf(h, "%d:%s %d:", len(k), k, len(secret[k]))
		h.Write(secret[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}
