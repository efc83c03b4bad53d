// Package model says what a history of calls is, and which histories are right: each project is a register that is created,
// put, compared and swapped, and removed, and that some order of the calls explains (linearizability, checked by porcupine).
//
// It stands beside the line of a push and looks at the server's API from outside. It uses no code of the server.
package model
