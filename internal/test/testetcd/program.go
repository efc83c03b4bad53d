package testetcd

import (
	"testing"

	"github.com/caravanserai/cara/internal/test/testclock"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// Program finds or builds an etcd.
type Program func(tb testing.TB) string

// Versions are the etcds that the product must work with, by a name for subtests.
var Versions = map[string]Program{"new": New, "debian": Debian} //nolint:gochecknoglobals // a constant

// Debian returns the path of etcd of Debian's package.
func Debian(tb testing.TB) string {
	tb.Helper()
	return testneed.Program(tb, "etcd", "etcd-server")
}

// New returns the path of etcd in the version of the product's client.
func New(tb testing.TB) string {
	tb.Helper()
	return build(tb, "")
}

// Stepped returns the path of the same etcd with a clock that a test steps; see testclock.
func Stepped(tb testing.TB) string {
	tb.Helper()
	overlay, err := testclock.Overlay(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return build(tb, overlay)
}

func build(tb testing.TB, overlay string) string {
	tb.Helper()
	return testneed.Build(tb, testneed.Pinned{Name: "etcd", Folder: "testetcd/etcd", Module: "go.etcd.io/etcd/server/v3", Overlay: overlay})
}
