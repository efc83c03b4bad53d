package syntax

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/internal/text"
)

// AllCapabilities means every capability. It can be dropped but not added.
const AllCapabilities = "ALL"

// ParseCapability parses a capability that a node's operator allows, and returns it as Docker spells it.
func ParseCapability(s string) (string, error) {
	name := CanonCapability(strings.TrimSpace(s))
	switch {
	case name == AllCapabilities:
		return "", fmt.Errorf("ALL is refused: name each capability that projects may add, such as NET_ADMIN")
	case !slices.Contains(Capabilities(), name):
		return "", fmt.Errorf("%q is no Linux capability; name one such as NET_ADMIN", text.Short(s))
	}
	return name, nil
}
