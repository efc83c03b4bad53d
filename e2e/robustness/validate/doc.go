// Package validate holds a history of a run against what the server promises: an order of the calls explains all answers;
// watches tell every change once, in order, also when they continue after a break; reads and lists show what watches tell; no
// acknowledged write is lost; no two projects claim a host; no server goes back to an older state; no loop writes after another
// server got its lease.
//
// It stands beside the line of a push and uses only the history. Every function returns what is wrong, in plain sentences, and
// has tests with histories that are wrong.
package validate
