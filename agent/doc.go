// Package agent makes Docker match what is assigned to this node, and reports. On the straight line it stands between the server, which sends
// the assignments of this node, and the engine (agent/engine, agent/docker). Its reports go back to the store.
//
// The parts: connection talks with the server, assignments hold what it said, watcher and machine look at the engine and the node, and worker
// works on one project at a time. It observes (observer), asks agent/step what to do, reports (reporter) and acts (actor).
//
// Three things must never happen: a container that nobody owns, two live copies of one project, and a healthy container restarted for no reason.
// What holds, so that they cannot:
//
//   - State is the engine's, and it is read before each decision. Events, time-outs and memory only say when to look. Only a project's worker
//     makes and removes its networks and volumes, so these are read once a turn, and again after each action on them and each action that failed.
//   - "The engine did not answer" (engine.ErrUnavailable) ends the pass. Only a 404 or a complete list says that a thing is gone.
//   - Identity is labels: cluster, node, project, uid, epoch, service, spec hash. What lacks our cluster and node label is foreign. It is never
//     touched, and if it has a name that we need, an error says so.
//   - A project has one worker, so two decisions about one project never overlap. Nothing but the worker touches its containers.
//   - What the server has not named is torn down only after Synced, on a stream of our own cluster. An assignment with an older epoch than the one
//     in force is refused. An assignment is on disk before it is acted on, and a teardown is on disk before the first container stops, so a restart
//     never brings back what was to go.
//   - A server that was restored from a backup names older epochs than those in force. This node holds the newest epoch that it was told. Another
//     node that runs the project is not named by the server and stops it at its own next Synced. So an older epoch is taken, but late: only from
//     the first list of a new stream, and only once that stream has stood for the whole grace without a newer one, which a server that only lags
//     behind would send. Then what belongs to the lost epoch goes, and the project is made once more (assignments.goBack).
//   - No value of a Secret is remembered, reported, logged or kept on disk (worker, step.Want.Values).
//   - A service leaves Endpoints before its container gets a signal. Requests that it was given before may end first.
package agent
