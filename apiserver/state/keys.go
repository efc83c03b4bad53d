package state

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// KindHost is the projects' claims on an ingress host: hosts/HOST refers to the projects. It is not a kind of the API.
const KindHost = "HostClaim"

// KindPort is a project's claim on a port: ports/PROTOCOL/PORT/SCOPE refers to the project. It is not a kind of the API.
const KindPort = "PortClaim"

// KindGuard is a key without content that represents many objects: every change of claims writes guards/claims. A
// transaction that depends on the absence of claims has it as a condition. It is not a kind of the API.
const KindGuard = "ObjectMeta"

// KindStaged is a claim of a snapshot that is stored in parts: see StagedClaim. It is not a kind of the API.
const KindStaged = "StagedClaim"

// KindCertificate is a certificate that the server has obtained, by its id. Its key is sealed with the name CertificateSeal. It
// is not a kind of the API.
const KindCertificate = "Certificate"

// KindChallenge is a challenge of a certificate authority, by its token. It is not a kind of the API.
const KindChallenge = "Challenge"

// KindCertificateOrder is what was done to obtain the certificate of a host, by host. It is not a kind of the API.
const KindCertificateOrder = "CertificateOrder"

// KindAcmeAccount is an account at a certificate authority. Its key is sealed with the name AccountSeal. It is not a kind of the
// API.
const KindAcmeAccount = "AcmeAccount"

// KindBlob describes a content of files, by its digest. The content is stored under BlobContentKey, outside of the cache. It is
// not a kind of the API.
const KindBlob = "Blob"

// KindRecovery says that the state was taken back to an older one. There is one object, RecoveryName. It is not a kind of the API.
const KindRecovery = "Recovery"

// RecoveryName is the name of the only Recovery.
const RecoveryName = "cluster"

// BlobContentKey returns the store key of a content of files.
func BlobContentKey(digest string) string { return "blob-contents/" + digest }

// AccountSeal returns the name with which the key of a stored AcmeAccount is sealed.
func AccountSeal(name string) string { return "acme-accounts/" + name }

// CertificateSeal returns the name with which the key of a stored Certificate is sealed.
func CertificateSeal(id string) string { return "certificates/" + id }

// Encoding is the first byte of every value, before the protobuf. A newer server may write another encoding.
const Encoding = 1

// kinds lists for each kind its key prefix, an empty object, and whether it can be watched. Secrets and tokens are never
// streamed.
var kinds = []kindRow{ //nolint:gochecknoglobals // a table that never changes
	{api.KindProject, "projects/", &carav1.Project{}, true},
	{api.KindNode, "nodes/", &carav1.Node{}, true},
	{api.KindSource, "sources/", &carav1.Source{}, true},
	{api.KindEvent, "events/", &carav1.Event{}, true},
	{api.KindClaim, "claims/", &carav1.Claim{}, true},
	{api.KindOverride, "overrides/", &carav1.Override{}, true},
	{api.KindTombstone, "tombstones/", &carav1.Tombstone{}, true},
	{api.KindVolume, "volumes/", &carav1.Volume{}, true},
	{api.KindSecret, "secrets/", &carav1.Secret{}, false},
	{api.KindToken, "tokens/", &carav1.Token{}, false},
	{KindStaged, "staged/", &carav1.StagedClaim{}, false},
	{KindHost, "hosts/", &carav1.HostClaim{}, false},
	{KindCertificate, "certificates/", &carav1.Certificate{}, false},
	{KindChallenge, "challenges/", &carav1.Challenge{}, false},
	{KindPort, "ports/", &carav1.PortClaim{}, false},
	{KindCertificateOrder, "certificate-orders/", &carav1.CertificateOrder{}, false},
	{KindAcmeAccount, "acme-accounts/", &carav1.AcmeAccount{}, false},
	{KindBlob, "blobs/", &carav1.Blob{}, false},
	{KindRecovery, "recoveries/", &carav1.Recovery{}, false},
	{api.KindSession, "sessions/", &carav1.Session{}, false},
	{KindGuard, "guards/", &carav1.ObjectMeta{}, false},
}

type kindRow struct {
	kind, prefix string
	empty        proto.Message
	watched      bool
}

// rowOf returns the row of a kind, or nil.
func rowOf(kind string) *kindRow {
	for i := range kinds {
		if kinds[i].kind == kind {
			return &kinds[i]
		}
	}
	return nil
}

// Watched returns the kinds that can be watched.
func Watched() []string {
	var names []string
	for _, k := range kinds {
		if k.watched {
			names = append(names, k.kind)
		}
	}
	return names
}

// keptEncoded reports whether the cache keeps the objects of a kind encoded. There are more events than all other objects together, a
// decoded one needs four times the memory, and few of them are ever read again.
func keptEncoded(kind string) bool { return kind == api.KindEvent }

// KindOf returns the kind of messages of type T, which is the name of the generated type.
func KindOf[T proto.Message]() string {
	var zero T
	return string(zero.ProtoReflect().Descriptor().Name())
}

// KindName returns the kind of a message, which is the name of its generated type.
func KindName(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

// Key returns the store key of an object.
func Key(kind, name string) string {
	if k := rowOf(kind); k != nil {
		return k.prefix + name
	}
	return "" // the store rejects an empty key
}

// parseKey is the inverse of Key; ok is false for other keys, such as the server's own identity.
func parseKey(key string) (kind, name string, empty proto.Message, ok bool) {
	for i := range kinds {
		if name, ok := strings.CutPrefix(key, kinds[i].prefix); ok {
			return kinds[i].kind, name, kinds[i].empty, true
		}
	}
	return "", "", nil, false
}

// Encode returns the bytes to store. It clears the object's resourceVersion, which the store provides.
func Encode(m proto.Message) ([]byte, error) {
	if meta := api.Meta(m); meta != nil {
		meta.ResourceVersion = ""
	}
	buf := make([]byte, 1, 1+proto.Size(m))
	buf[0] = Encoding
	buf, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", KindName(m), err)
	}
	return buf, nil
}

// Decode is the inverse of Encode; revision is that of the object's last write.
func Decode(empty proto.Message, value []byte, revision int64) (proto.Message, error) {
	if len(value) == 0 || value[0] != Encoding {
		return nil, fmt.Errorf("value of revision %d is not in encoding %d: was it written by a newer server?", revision, Encoding)
	}
	m := empty.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(value[1:], m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", KindName(m), err)
	}
	if meta := api.Meta(m); meta != nil {
		meta.ResourceVersion = api.FormatRevision(revision)
	}
	return m, nil
}
