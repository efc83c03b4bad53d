package certs

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
)

// TestExternalAccount: an authority that issues certificates only to its customers needs a key from them, and the condition says so.
func TestExternalAccount(t *testing.T) {
	const id, key = "customer-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	var external ExternalAccount
	r := newRig(t, func(_ *rig, c *Config) { c.ExternalAccount = external })
	r.Bind(id, key)
	https := r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusFalse, "start cara-server with --acme-eab-key-id and --acme-eab-key-file")
	r.stop()
	external = ExternalAccount{KeyID: id, Key: "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmcta2V5"}
	r.pass(time.Hour)
	r.obtain()
	r.ready("shop", api.StatusFalse, "externalAccountBinding")
	r.stop()
	external.Key = key
	r.pass(24 * time.Hour)
	r.obtain()
	r.ready("shop", api.StatusTrue, "app.test: valid until")
	r.shows(https, "app.test")
}
