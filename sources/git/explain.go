package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/sources"
)

// errNoCommit means that the server does not provide the requested commit.
var errNoCommit = errors.New("no such commit")

// noCommit is an errNoCommit with the message for a source that follows that commit by hash.
type noCommit struct{ said *sources.Error }

func (e *noCommit) Error() string        { return e.said.Message }
func (e *noCommit) Is(target error) bool { return target == errNoCommit }
func (e *noCommit) Unwrap() error        { return e.said }

// explain turns an error into one for users. An unknown error means unreachable, which is retried.
func explain(ctx context.Context, a address, c credentials, err error) error {
	if errors.Is(err, sources.ErrMoved) {
		return err
	}
	if known, ok := errors.AsType[*sources.Error](err); ok {
		return known
	}
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return sources.Retry(api.ReasonUnreachable, "%s stopped sending; it will be tried again", a)
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if e := explainTrust(a, c, err); e != nil {
		return e
	}
	var redirect *redirectError
	var refused *refusedAddress
	var said *remoteError
	var dns *net.DNSError
	switch {
	case errors.As(err, &redirect):
		return sources.Human(api.ReasonAddressRefused, "%s redirects to another host (%s), which is not followed; put the new address in spec.git.url", a, redirect.to)
	case errors.As(err, &refused):
		return sources.Human(api.ReasonAddressRefused,
			"%s is at %s, a loopback, link-local or private address; start cara-server with --allow-source-cidr %s/%d to allow it",
			a, refused.addr, refused.addr, refused.addr.BitLen())
	case errors.As(err, &said):
		return explainRemote(a, c, said)
	case errors.As(err, &dns) && dns.IsNotFound:
		return sources.Retry(api.ReasonUnreachable, "%s: the host name does not resolve; check spec.git.url and DNS", a)
	case errors.Is(err, errAbsent), errors.Is(err, errCorrupt):
		return sources.Retry(api.ReasonReadFailed, "%s is damaged: %s; run `git fsck` there", a, c.scrub(err.Error()))
	case errors.Is(err, errNotPack):
		return sources.Retry(api.ReasonProtocolError, "%s sent a pack that cannot be read: %s", a, c.scrub(err.Error()))
	}
	return sources.Retry(api.ReasonUnreachable, "%s cannot be reached: %s", a, c.scrub(text.Innermost(err).Error()))
}

// explainTrust explains errors of certificates and host keys, or returns nil.
func explainTrust(a address, c credentials, err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var verify *tls.CertificateVerificationError
	var key *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &unknown):
		return sources.Human(api.ReasonAuthFailed, "%s has a certificate of an unknown authority; add `ca.crt` to the Secret that spec.git.secretRef names", a)
	case errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return sources.Human(api.ReasonAuthFailed, "%s has a certificate that is not valid for it: %s", a, text.Innermost(err))
	case errors.As(err, &key) && len(key.Want) > 0:
		return sources.Human(api.ReasonHostKeyRefused, "%s shows another host key than `known_hosts` has: somebody may be in between; if the key was changed on purpose, update the Secret", a)
	case errors.As(err, &key) && len(c.badLines) > 0:
		return sources.Human(api.ReasonHostKeyRefused, "%s is not in the Secret's `known_hosts`, where these cannot be read: %s; add its line (from `ssh-keyscan`, checked)",
			a, lineNumbers(c.badLines))
	case errors.As(err, &key):
		return sources.Human(api.ReasonHostKeyRefused, "%s is not in the Secret's `known_hosts`; add its line (from `ssh-keyscan`, checked)", a)
	case errors.As(err, &revoked):
		return sources.Human(api.ReasonHostKeyRefused, "%s shows a host key that `known_hosts` marks as revoked", a)
	}
	return nil
}

// explainRemote interprets the messages of git servers.
func explainRemote(a address, c credentials, e *remoteError) error {
	said := strings.ToLower(e.said)
	switch {
	case strings.Contains(said, "not our ref"), strings.Contains(said, "unadvertised object"):
		return &noCommit{sources.Human(api.ReasonRefNotFound,
			"%s has no such commit, or gives none out by hash; follow a branch or tag, or check spec.git.ref.commit", a)}
	case strings.Contains(said, "not found"), strings.Contains(said, "does not exist"), strings.Contains(said, "no such"),
		strings.Contains(said, "does not appear to be a git repository"):
		return sources.Human(api.ReasonRepositoryNotFound, "%s does not exist, or the credentials may not see it: %s", a, c.scrub(e.said))
	case strings.Contains(said, "denied"), strings.Contains(said, "permission"), strings.Contains(said, "authent"):
		return sources.Human(api.ReasonAuthFailed, "%s refused access: %s", a, c.scrub(e.said))
	}
	return sources.Retry(api.ReasonProtocolError, "%s says: %s", a, c.scrub(e.said))
}

// explainFile explains an error of one manifest in a readable tree.
func explainFile(ctx context.Context, where, path string, err error) error {
	_, known := errors.AsType[*sources.Error](err)
	_, unfit := errors.AsType[*sources.FileError](err)
	if known || unfit || ctx.Err() != nil {
		return err
	}
	return sources.Retry(api.ReasonReadFailed, "%s in %s cannot be read: %s; run `git fsck` there", path, where, credentials{}.scrub(err.Error()))
}
