// Package e2e runs the whole straight line with the real programs: a push to a real git server, cara-server, cara-agent
// and caractrl as processes of their own, containers in a real Docker engine, images from a real registry; and what
// goes wrong on the way: bad manifests, bad images, engines that stop, programs that are killed.
//
// It stands outside the line and looks at both its ends. Each test has a cluster, a repository and a part of the network
// pool of its own, so tests run side by side on one engine. Invariants: a test waits for conditions, never for a time;
// it ends with an engine that holds nothing of its cluster; and a failure shows what a person would look at first.
package e2e
