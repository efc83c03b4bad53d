package rules

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A project claims each host of its ingress rules together with the rules' paths. Projects share a host only if they have the
// same owner: otherwise somebody could take requests of another owner's host, such as its login page.
//
// All claims of a host are in one object, hosts/HOST. So two concurrent claims of a host conflict, whatever their paths are.

// maxHostPaths limits how many paths of one host all projects together can claim.
const maxHostPaths = 200

// claimHosts claims the hosts and paths of p and releases those that only old has. It returns an error if p cannot have one
// of them. old may be nil.
func claimHosts(t *state.Tx, old, p *carav1.Project) error {
	paths := t.Hosts.Paths(p.GetSpec())
	hosts := slices.Concat(old.GetStatus().GetHosts(), p.GetStatus().GetHosts())
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		claim, _ := state.Read[*carav1.HostClaim](t, host)
		next, fresh := withClaims(claim, p, paths[host])
		if err := mayShare(t, p, host, claim, fresh); err != nil {
			return err
		}
		writeHost(t, host, claim, next)
	}
	return nil
}

// releaseHosts releases all hosts of a project that is removed.
func releaseHosts(t *state.Tx, p *carav1.Project) {
	for _, host := range p.GetStatus().GetHosts() {
		claim, _ := state.Read[*carav1.HostClaim](t, host)
		next, _ := withClaims(claim, p, nil)
		writeHost(t, host, claim, next)
	}
}

func writeHost(t *state.Tx, host string, claim, next *carav1.HostClaim) {
	switch {
	case next == nil && claim != nil:
		t.Remove(state.KindHost, host)
	case !proto.Equal(claim, next):
		t.Write(state.Key(state.KindHost, host), next)
	}
}

// withClaims returns a host's claims after p has claimed these paths and no others, or nil if no claim is left. fresh are the
// paths that p did not have before. The claims of other projects do not change, so a path can then have two claims; see
// mayShare.
func withClaims(claim *carav1.HostClaim, p *carav1.Project, paths []string) (next *carav1.HostClaim, fresh []string) {
	name, uid := p.GetMetadata().GetName(), p.GetMetadata().GetUid()
	var all []*carav1.PathClaim
	had := map[string]bool{}
	for _, c := range pathClaims(claim) {
		if c.GetProject() == name {
			had[c.GetPath()] = true
		} else {
			all = append(all, c)
		}
	}
	for _, path := range paths {
		all = append(all, &carav1.PathClaim{Path: path, Project: name, Uid: uid})
		if !had[path] {
			fresh = append(fresh, path)
		}
	}
	return hostClaim(all), fresh
}

// pathClaims returns the claims on a host's paths.
func pathClaims(claim *carav1.HostClaim) []*carav1.PathClaim {
	if len(claim.GetPaths()) == 0 && claim.GetName() != "" {
		return []*carav1.PathClaim{{Path: api.DefaultIngressPath, Project: claim.GetName(), Uid: claim.GetUid()}}
	}
	return claim.GetPaths()
}

// hostClaim is the inverse of pathClaims. A host with one claim, for all its paths, is stored as older servers store it. Such a
// server also sees every other host as claimed.
func hostClaim(all []*carav1.PathClaim) *carav1.HostClaim {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *carav1.PathClaim) int { return strings.Compare(a.GetPath(), b.GetPath()) })
	claim := &carav1.HostClaim{Kind: api.KindProject, Name: all[0].GetProject(), Uid: all[0].GetUid()}
	if len(all) > 1 || all[0].GetPath() != api.DefaultIngressPath {
		claim.Paths = all
	}
	return claim
}

// mayShare returns an error if p cannot claim fresh paths of a host that has these claims.
func mayShare(t *state.Tx, p *carav1.Project, host string, claim *carav1.HostClaim, fresh []string) error {
	alone := passesTLS(t, p, host)
	if len(fresh) == 0 && !alone {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(pathClaims(claim)), func(c *carav1.PathClaim) bool {
		return c.GetProject() == p.GetMetadata().GetName()
	})
	owners := map[string]string{}
	for _, c := range others {
		holder, _ := state.Read[*carav1.Project](t, c.GetProject())
		owners[c.GetProject()] = holder.GetMetadata().GetOwner()
		if alone || passesTLS(t, holder, host) {
			return api.Errorf(codes.AlreadyExists, api.TitleConflict,
				"ingress host %q belongs to project %q, and a host with target.protocol %s belongs to one project alone: choose another host, or delete that project first",
				host, c.GetProject(), api.TargetTLS)
		}
	}
	if why := shareProblem(host, fresh, others, p.GetMetadata().GetOwner(), owners); why != "" {
		return api.Errorf(codes.AlreadyExists, api.TitleConflict, "%s", why)
	}
	return nil
}

// passesTLS reports whether a project has a host alone, because agents pass on TLS connections to it.
func passesTLS(t *state.Tx, p *carav1.Project, host string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return api.PassesTLS(in) && t.Hosts.Template.Host(in.GetHost()) == host
	})
}

// shareProblem returns why a project of owner cannot claim paths of a host on which other projects have claims, or "".
// owners are the owners of the other projects, by project. A project without an owner shares its host with no other project.
func shareProblem(host string, paths []string, others []*carav1.PathClaim, owner string, owners map[string]string) string {
	const advice = "choose another host, or delete that project first"
	for _, c := range others {
		switch {
		case !slices.Contains(paths, c.GetPath()):
		case c.GetPath() == api.DefaultIngressPath:
			return fmt.Sprintf("ingress host %q belongs to project %q: %s", host, c.GetProject(), advice)
		default:
			return fmt.Sprintf("path %s of ingress host %q belongs to project %q: choose another path, or delete that project first", c.GetPath(), host, c.GetProject())
		}
	}
	for _, c := range others {
		if has := owners[c.GetProject()]; has == "" || has != owner {
			return fmt.Sprintf("ingress host %q belongs to project %q of %s, and only projects of the same owner can share a host; the owner of this project is %s: %s",
				host, c.GetProject(), api.OrNobody(has), api.OrNobody(owner), advice)
		}
	}
	if n := len(others) + len(paths); n > maxHostPaths {
		return fmt.Sprintf("projects would have %d paths of ingress host %q, at most %d are allowed: choose another host", n, host, maxHostPaths)
	}
	return ""
}
