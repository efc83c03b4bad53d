// Package testcluster runs the real programs for end-to-end tests, benchmarks and the demo: it builds cara-server,
// cara-agent and caractrl from this tree, starts them as processes of their own, kills them, and speaks to them as a
// user would. It fakes nothing, and stands beside the straight line.
//
// Every process is ended by its own pid, and a Cluster that is closed leaves neither process nor container behind.
package testcluster
