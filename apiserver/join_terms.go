package apiserver

import (
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// joinsAs refuses a node's name that the join token does not cover.
func joinsAs(token *carav1.Token, node string) error {
	patterns := token.GetNodeNames()
	if len(patterns) == 0 || api.MatchAny(patterns, node) {
		return nil
	}
	return api.Forbidden("join token %q is for nodes named %s, not %q; use such a --node-name, or make a token with --node-name %s",
		token.GetMetadata().GetName(), strings.Join(patterns, ", "), node, node)
}

// joinLabels returns the labels of a node that is new: those of its join token, which the node may choose within the
// token's patterns.
func joinLabels(token *carav1.Token, asked map[string]string) (map[string]string, error) {
	labels := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		value := asked[key]
		if pattern, ok := token.GetLabels()[key]; !ok || !api.MatchPattern(pattern, value) {
			return nil, api.Forbidden("join token %q does not allow the label %s=%s; make a token with --label %s=%s, or take the label away from cara-agent",
				token.GetMetadata().GetName(), key, value, key, value)
		}
		labels[key] = value
	}
	for key, pattern := range token.GetLabels() {
		if !strings.Contains(pattern, api.Everything) {
			labels[key] = pattern
		}
	}
	return labels, nil
}
