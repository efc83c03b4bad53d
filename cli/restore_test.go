package cli

import (
	"testing"

	"github.com/caravanserai/cara/api"
)

// TestRestoreIsShownUntilItsEnd: the command ends when the project runs on the restored data.
func TestRestoreIsShownUntilItsEnd(t *testing.T) {
	h := newTestServer(t)
	ctx := t.Context()
	must(t, h.node(ctx, "n1"))
	must(t, h.tooled(ctx, "n1"))
	must(t, h.holds(ctx, "n1"))
	for _, r := range []result{
		h.ctl(ctx, "", "create", "secret", "s", "--type", "backup", "--from-literal", "repository=/srv/b", "--from-literal", "password=abcdefghijk"),
		h.ctl(ctx, `{apiVersion: caravanserai/v1, kind: Project, metadata: {name: shop}, spec: {services: [{name: web, image: nginx}], volumes: [{name: db, type: Managed}], backup: {secretRef: s}}}`,
			"apply", "-f", "-"),
	} {
		if r.code != 0 {
			t.Fatal(r.err)
		}
	}
	must(t, h.schedule(ctx, "shop", "Bind", "n1", ""))
	must(t, h.holds(ctx, "n1", "shop.db"))
	must(t, h.report(ctx, "shop", "Running", "Running", "Ready", ""))
	out, _ := h.start(t, "restore", "shop", "--wait")
	out.until(t, "project/shop Restoring: restoring the newest backup of volume db on node n1\n")
	must(t, h.fills(ctx, "n1", api.VolumeRestored, "0123456789abcdef", ""))
	out.until(t, "project/shop Scheduled: ")
	must(t, h.report(ctx, "shop", "Running", "Running", "Ready", ""))
	out.until(t, "project/shop runs on its restored data\n")
}
