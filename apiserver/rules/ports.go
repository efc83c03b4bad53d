package rules

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A project claims each protocol, port and scope of its ports. Each claim is an object of its own, ports/PROTOCOL/PORT/SCOPE,
// so two concurrent claims of a port conflict.
//
// A claim counts only if its project exists and still has the port. So a claim that an older server did not release, because
// it does not know ports, blocks nobody.

// claimPorts claims the ports of p and releases those that only old has. It returns an error if another project has one of
// them. old may be nil.
func claimPorts(t *state.Tx, old, p *carav1.Project) error {
	keys := api.PortKeys(p.GetSpec())
	for _, k := range keys {
		if holder := portHolder(t, k); holder != "" && holder != p.GetMetadata().GetName() {
			return api.Errorf(codes.AlreadyExists, api.TitleConflict, "%s belongs to project %q: choose another port, or delete that project first", k, holder)
		}
		had, _ := state.Read[*carav1.PortClaim](t, k.Name())
		claim := &carav1.PortClaim{Project: p.GetMetadata().GetName(), Uid: p.GetMetadata().GetUid()}
		if !proto.Equal(had, claim) {
			t.Write(state.Key(state.KindPort, k.Name()), claim)
		}
	}
	for _, k := range api.PortKeys(old.GetSpec()) {
		if !slices.Contains(keys, k) {
			releasePort(t, k, old)
		}
	}
	return nil
}

// releasePorts releases all ports of a project that is removed.
func releasePorts(t *state.Tx, p *carav1.Project) {
	for _, k := range api.PortKeys(p.GetSpec()) {
		releasePort(t, k, p)
	}
}

func releasePort(t *state.Tx, k api.PortKey, p *carav1.Project) {
	if claim, ok := state.Read[*carav1.PortClaim](t, k.Name()); ok && claim.GetUid() == p.GetMetadata().GetUid() {
		t.Remove(state.KindPort, k.Name())
	}
}

// portHolder returns the project whose claim of a port counts, or "".
func portHolder(t *state.Tx, k api.PortKey) string {
	claim, ok := state.Read[*carav1.PortClaim](t, k.Name())
	if !ok {
		return ""
	}
	p, ok := state.Read[*carav1.Project](t, claim.GetProject())
	if !ok || p.GetMetadata().GetUid() != claim.GetUid() || !slices.Contains(api.PortKeys(p.GetSpec()), k) {
		return ""
	}
	return claim.GetProject()
}
