package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// PeersDigest identifies a set of peers, whatever their order. Agents and servers compare it, so a peer that gets another field
// needs another digest. It only tells what the other side knows: an agent that sends a wrong one harms nobody but itself.
type PeersDigest [sha256.Size]byte

// Toggle adds a peer to the set, or removes it.
func (d *PeersDigest) Toggle(p *carav1.Peer) {
	from := p.GetNotBefore()
	entry := binary.BigEndian.AppendUint64(nil, uint64(from.GetSeconds()))
	entry = binary.BigEndian.AppendUint32(entry, uint32(from.GetNanos()))
	sum := sha256.Sum256(append(entry, p.GetNode()...))
	subtle.XORBytes(d[:], d[:], sum[:])
}
