package api

import "strings"

// HostTemplate spells out the short hosts of ingress rules.
type HostTemplate struct {
	BaseDomain  string
	Environment string
}

// Host returns the host that an ingress rule claims, in lower case. A host with a dot is used as it is, a short one
// becomes `{host}.{environment}.{baseDomain}`; parts of the template that are empty are left out.
func (t HostTemplate) Host(short string) string {
	host := strings.ToLower(strings.TrimSuffix(short, "."))
	if host == "" || strings.Contains(host, ".") {
		return host
	}
	for _, part := range []string{t.Environment, t.BaseDomain} {
		if part = strings.ToLower(strings.Trim(part, ".")); part != "" {
			host += "." + part
		}
	}
	return host
}
