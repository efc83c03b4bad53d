// Package docker implements engine.Engine as a thin adapter over the Docker API. In the path from a push to a container it
// is the last step, which creates the containers.
//
// Invariants:
//
//   - Every call with one response has a timeout. Streams, pulls and waits have an inactivity limit and no total timeout.
//   - An engine that did not answer is engine.ErrUnavailable, never engine.ErrNotFound. Only the engine's own 404 is.
//   - If a name is taken, the object is adopted if it has exactly the requested labels (an earlier call succeeded and its
//     response was lost). If it is not ours, the error is engine.ErrForeign. Docker's own restart policy is always `no`.
//   - Subnets come from the agent's pool, lowest free one first, and never overlap with any network of the engine.
//
// This package makes no decisions; the agent does.
package docker
