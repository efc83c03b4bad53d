// Package docker is the agent's engine: a thin adapter over the Docker API. On the straight line it is the last step,
// the one that makes containers.
//
// What holds:
//
//   - Every call that answers has a time-out; streams, pulls and waits have an inactivity limit and no total.
//   - An engine that did not answer is engine.ErrUnavailable, and never engine.ErrNotFound: only the engine's own 404 is.
//   - A name that is taken is adopted where the labels are the very ones asked for (an earlier call succeeded and its
//     answer was lost), and engine.ErrForeign where they are not ours. Docker's own restart policy is always `no`.
//   - Subnets come from the agent's pool, the lowest free one first, and never overlap with any network of the engine.
//
// No decision is made here: the agent has decided.
package docker
