// Package loop is what every loop of Cara stands on: a picture of the cluster (Mirror) and a keyed queue of work
// (Queue). Sources, reconciler, scheduler, gc and agent are all the same shape: list, watch, keyed queue, resync.
//
// What must hold, and what each loop may rely on:
//
//   - A Mirror shows whole transactions, in the order of their commit. Whoever sees an object at revision R sees
//     everything else that was committed up to R.
//   - Objects in a Mirror are shared and never change. Clone before changing one.
//   - OnChange runs under the mirror's lock, so what a loop derives from the objects is never behind them. It says what to look at, never what
//     to do. What it missed while the connection was down comes as one transaction when the picture is whole again.
//   - A loop reads its own writes by one rule: Mirror.Reached, with the revision of the newest of them, before it looks at anything else.
//   - A Queue never works on one key twice at once, and a key added while it is worked on is worked on again.
package loop
