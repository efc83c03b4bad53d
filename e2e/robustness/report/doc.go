// Package report writes down what a failed run was: the history as JSON, porcupine's picture of the calls, the logs of all
// programs, and the command that repeats the run.
//
// It stands at the end of a run, beside the line of a push. A run without failures leaves nothing.
package report
