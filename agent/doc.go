// Package agent makes Docker match what is assigned to this node, and reports. On the straight line it stands between
// the server's word (a bound project comes down the Connect stream) and the engine (agent/docker); its reports go back
// to the store.
//
// Three things must never happen: a container that nobody owns, two live copies of one project, a healthy container
// restarted for no reason. What holds, so that they cannot:
//
//   - State is the engine's, read anew before each decision. Events, time-outs and memory only say when to look.
//     Networks and volumes, which a project's own worker alone makes and removes, are read once a turn and again after
//     each action on them and each action that failed.
//     "The engine did not answer" (ErrUnavailable) ends the pass; only a 404 or a whole list says that a thing is gone.
//   - Identity is labels: cluster, node, project, uid, epoch, service, spec hash. Whatever lacks our cluster and node
//     label is foreign: never touched, and its name in our way is an error that says so.
//   - Step decides, and only Step: a pure function of what is wanted, what is there and the time. It never returns an
//     action against a container that is already as wanted, so an agent that starts anew adopts and restarts nothing.
//   - One worker per project, so two decisions about one project never overlap. Nothing but the worker touches its
//     containers.
//   - What the server has not named is torn down only after Synced, on a stream of our own cluster. An assignment with
//     an older epoch than the one in force is refused. An assignment is on disk before it is acted on, and a teardown
//     is on disk before the first container stops, so a restart never brings back what was on its way out.
//   - Only images that Cara pulled, and that were not on the node before, are ever removed: never one that a container,
//     running or not, or an assignment uses, nor one that somebody gave another name, and never by force.
//   - A server that was restored from a backup names older epochs than those in force. Nobody can tell whether a newer
//     epoch runs elsewhere, but this node holds the newest that it was ever told, and whichever other node runs the
//     project is not named by the server, so it stops it on its own next Synced. Hence the server's word counts, late:
//     an older epoch is taken only from the first list of a new stream, and only once that stream has stood for the
//     whole grace without a newer one, which a server that only lags behind would send. Then what belongs to the lost
//     epoch goes and the project is made anew, once. In mid-stream an older epoch is refused, whatever it says.
//   - Of two containers of one service that is replaced start-first, the old one serves and is kept up until the new one
//     is ready, and for good where the new one fails (step_update.go). Which is which, the engine's own state says.
//   - No value of a Secret is remembered, reported, logged or kept on disk (secrets.go, quiet.go).
//   - A service leaves Endpoints before its container gets a signal, and the requests that it had been given may end first.
package agent
