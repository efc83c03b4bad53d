// Package gc ends what time ends: projects whose expiry has passed, records of projects that are removed, overrides
// that ran out, history that is old. On the way from a push to a container it is at the way back down: watch -> due -> API.
//
// What must hold:
//
//   - A project is deleted when its expiry comes, not at the next poll: one timer stands at the earliest moment that
//     anything is due. It expires whatever its phase is, whether its source is suspended, and however often the
//     process was started meanwhile: what is due is read from the objects, never from memory.
//   - Wall time decides. The agenda is looked at again at least every half minute, so that a clock that was set, or a
//     machine that slept, is noticed.
//   - Before a project expires it says so, once for each expiry. A notice that cannot be given holds up no end.
//   - Cost follows the change: a change costs the logarithm of what is on the agenda, and waiting costs nothing.
//   - Whatever is due is decided again from the newest state just before it is done, and done with the object's uid.
package gc
