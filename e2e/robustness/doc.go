// Package robustness breaks a running cluster at random while clients call it, and holds what they were told against what the
// server promises. Its parts have the names of etcd's suite: a scenario is the cluster and what happens to it, traffic are the
// calls and pushes, a fault breaks something, the model says which histories are right, validate finds what is wrong, and a
// report says how to repeat it.
//
// It runs the whole line of a push from outside, with the real programs. `make robustness` runs it for as long as one likes;
// README.md says how, what it checks and which mistakes it has been shown to find.
package robustness
