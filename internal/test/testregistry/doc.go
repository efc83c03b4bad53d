// Package testregistry is a real container registry on loopback with the faults of real ones: passwords, 404, 429, 500,
// slow blobs, no answers, outages.
//
// The engine pulls from it when a push is deployed. Invariants: a pushed image exists whatever fault is set, because pushes
// bypass the faults, and only requests to the listener are counted.
package testregistry
