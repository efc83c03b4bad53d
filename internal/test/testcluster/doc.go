// Package testcluster runs the real programs for end-to-end tests, benchmarks and the demo. It builds cara-server,
// cara-agent and caractrl from this tree, starts and kills them as processes, and uses them as a user would. It replaces no
// part of a push with a fake.
//
// Every process is stopped by its own PID, and a closed Cluster leaves no process or container behind.
package testcluster
