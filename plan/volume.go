package plan

import (
	"strings"

	"github.com/caravanserai/cara/api"
)

// Reattaches reports whether the data of a retained volume goes to a project of the same name. volumeOwner is the owner of
// the project that used the volume last, and owner that of the new project. The rules for projects hold for their data,
// too: the same owner gets it back, a source gets what no source owned if its adopt policy takes such a project, and a
// person gets what no source owned. Nobody gets the data of another source, nor data that a node
// found without a record of it.
func Reattaches(volumeOwner, owner, adopt string) bool {
	if volumeOwner == owner {
		return true
	}
	if strings.HasPrefix(volumeOwner, api.PrefixNode) {
		return false
	}
	if _, other := api.SourceOf(volumeOwner); other {
		return false
	}
	if _, source := api.SourceOf(owner); source {
		return Adopts(volumeOwner, adopt)
	}
	return true
}
