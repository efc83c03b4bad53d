package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// IngressCondition returns the condition IngressReady of a project, or nil if clients can use its ingress rules. nodes are all
// nodes of the cluster, sorted by name. passwords returns what is wrong with a Secret of basicAuth and what to do, or "".
func IngressCondition(p *carav1.Project, hosts HostTemplate, nodes []*carav1.Node, passwords func(secret string) string) *carav1.Condition {
	var reason Reason
	var lines []string
	if public := slices.IndexFunc(p.GetSpec().GetIngress(), Public); public >= 0 {
		if problem := publicProblem(nodes); problem != "" {
			reason, lines = ReasonNoPublicIngress, append(lines, hosts.Host(p.GetSpec().GetIngress()[public].GetHost())+" is Public, but "+problem)
		}
	}
	for _, in := range p.GetSpec().GetIngress() {
		secret := in.GetAccess().GetBasicAuth().GetSecretRef()
		if secret == "" {
			continue
		}
		if problem := passwords(secret); problem != "" {
			reason = cmp.Or(reason, ReasonPasswordsUnusable)
			lines = append(lines, passwordsLine(hosts.Host(in.GetHost()), in.GetPath(), secret)+problem)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return NewCondition(CondIngressReady, StatusFalse, reason, clipList(lines))
}

// publicProblem returns why no node serves public hosts, or "".
func publicProblem(nodes []*carav1.Node) string {
	var away []string
	for _, n := range nodes {
		switch {
		case !n.GetStatus().GetPublicIngress():
		case n.GetStatus().GetState() == NodeNotReady:
			away = append(away, n.GetMetadata().GetName())
		default:
			return ""
		}
	}
	if len(away) > 0 {
		return fmt.Sprintf("the nodes that serve public hosts are not connected: %s; start cara-agent there", strings.Join(away[:min(len(away), maxListed)], ", "))
	}
	return "no node serves public hosts; start a cara-agent with --public-http :80 --public-https :443"
}

// passwordsLine begins the line of a rule whose Secret cannot be used.
func passwordsLine(host, path, secret string) string {
	return fmt.Sprintf("%s%s answers 503, because Secret %s ", host, strings.TrimSuffix(IngressPath(path), "/"), secret)
}

// PublicNotServed reports whether the condition of a project says that no agent serves its public hosts.
func PublicNotServed(p *carav1.Project) bool {
	return FindCondition(p.GetStatus().GetConditions(), CondIngressReady).GetReason() == ReasonNoPublicIngress
}

// PasswordsUnusable reports whether the condition of a project says that the Secret of a rule cannot be used. host is the full host.
func PasswordsUnusable(p *carav1.Project, host string, in *carav1.Ingress) bool {
	secret := in.GetAccess().GetBasicAuth().GetSecretRef()
	message := FindCondition(p.GetStatus().GetConditions(), CondIngressReady).GetMessage()
	return secret != "" && strings.Contains("; "+message, "; "+passwordsLine(host, in.GetPath(), secret))
}
