package program

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/caravanserai/cara/apiserver/oidc"
)

// OpenIDConfig holds the flags for logins with OpenID Connect.
type OpenIDConfig struct {
	// Issuer is the URL of the provider; empty uses none.
	Issuer string
	// ClientID is the server's id at the provider. ClientSecretFile has its secret, for a confidential client.
	ClientID, ClientSecretFile string
	// RedirectURL is the address of the callback, if the server is behind a proxy.
	RedirectURL string
	// RoleMap has GROUP=ROLE or GROUP=deployer:PREFIX.
	RoleMap []string
	// GroupsClaim is the claim with the groups.
	GroupsClaim string
	// Scopes are asked for in addition.
	Scopes []string
	// CAFile has the roots for the connection to the provider in PEM; empty means those of the system.
	CAFile string
}

// config returns the configuration of the provider; nil without one.
func (c *OpenIDConfig) config() (*oidc.Config, error) {
	if c.Issuer == "" {
		if !reflect.DeepEqual(*c, OpenIDConfig{}) {
			return nil, errors.New("logins with OpenID Connect need --oidc-issuer: add it, or remove the other flags about OpenID Connect")
		}
		return nil, nil
	}
	out := &oidc.Config{Issuer: c.Issuer, ClientID: c.ClientID, RedirectURL: c.RedirectURL, GroupsClaim: c.GroupsClaim, Scopes: c.Scopes}
	for _, text := range c.RoleMap {
		grant, err := oidc.ParseGrant(text)
		if err != nil {
			return nil, fmt.Errorf("--oidc-role-map %w", err)
		}
		out.Grants = append(out.Grants, grant)
	}
	var err error
	if c.ClientSecretFile != "" {
		if out.ClientSecret, err = readSecret("--oidc-client-secret-file", c.ClientSecretFile); err != nil {
			return nil, err
		}
	}
	if out.Roots, err = readRoots("--oidc-ca", c.CAFile); err != nil {
		return nil, err
	}
	return out, out.Validate()
}
