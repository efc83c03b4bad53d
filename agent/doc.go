// Package agent makes Docker match the assignments of this node, and reports the result. In the path from a push to a
// container it comes between the server, which sends the assignments, and the engine (agent/engine, agent/docker).
//
// The parts: connection communicates with the server, assignments holds what the server sent, watcher and machine observe
// the engine and the node, and worker processes one project at a time. It observes (observer), calls agent/step to decide,
// reports (reporter) and acts (actor).
//
// Three things must never happen: a container without an owner, two live copies of one project, and a restart of a healthy
// container without a reason. Invariants:
//
//   - The state is in the engine, and is read before each decision. Events, timeouts and memory only say when to look. Only
//     a project's worker creates and removes its networks and volumes, so these are read once per turn, and again after each
//     action on them and each failed action.
//   - If the engine does not answer (engine.ErrUnavailable), the pass ends. Only a 404 or a complete list proves that an
//     object is gone.
//   - Labels are the identity: cluster, node, project, uid, epoch, service, spec hash. An object without our cluster and
//     node labels is foreign. It is never touched. If it has a name that we need, an error reports that.
//   - A project has one worker, so two decisions about a project never overlap. Only the worker changes its containers.
//   - A project that the server has not named is removed only after Synced, on a stream of our own cluster. An assignment
//     with an older epoch than the one in force is rejected. An assignment is on disk before it is executed, and a teardown
//     is on disk before the first container stops, so a restart never revives what was being removed.
//   - A server that was restored from a backup sends older epochs than those in force. This node has the newest epoch that
//     it received. Another node that runs the project is not named by the server and stops it at its own next Synced. So
//     this node accepts an older epoch, but late: only from the first list of a new stream, and only if the stream has
//     lasted for the whole grace without a newer epoch, which a server that merely lags behind would send. Then everything
//     of the lost epoch is removed, and the project is created again (assignments.goBack).
//   - A server that knows that its state was taken back asks first what this node has (assignments.obeyed). It then sends epochs that
//     are not older, and goBack has nothing to do.
//   - No value of a Secret is remembered, reported, logged or stored on disk (worker, step.Want.Values).
//   - A service leaves its endpoints before its container gets a signal, so that its current requests can finish.
package agent
