package ondemand

import (
	"cmp"
	"slices"
	"time"
)

// Limits are what clients may occupy with hosts that the agent does not know, and what the agent keeps.
type Limits struct {
	// Questions is the number of hosts that the server has not answered yet. The default is 512.
	Questions int
	// Waiting is the number of requests that wait for answers, and ClientWaiting that of one client. The defaults are 1024 and 64.
	Waiting, ClientWaiting int
	// Patience is how long a request waits for an answer. The default is 5 s.
	Patience time.Duration
	// Unknown is the number of hosts that the agent knows to be claimed by no project. The default is 2048.
	Unknown int
	// Held is the number of hosts with routes, besides those of the node's own projects. The default is 10,000.
	Held int
	// Idle is how long a host is kept without a request. The default is 1 h.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Questions: cmp.Or(l.Questions, 512), Waiting: cmp.Or(l.Waiting, 1024), ClientWaiting: cmp.Or(l.ClientWaiting, 64),
		Patience: cmp.Or(l.Patience, 5*time.Second), Unknown: cmp.Or(l.Unknown, 2048), Held: cmp.Or(l.Held, 10_000), Idle: cmp.Or(l.Idle, time.Hour),
	}
}

// Verb is what to do with a request for a host that is not in the table of routes.
type Verb string

// Verbs of a request.
const (
	Unknown Verb = "Unknown" // no project claims the host
	Away    Verb = "Away"    // the server cannot be asked
	Busy    Verb = "Busy"    // too many requests wait, of this client or of all
	Wait    Verb = "Wait"    // the server has been asked already
	Ask     Verb = "Ask"     // ask the server, and wait
)

// Look is what the decision about a request is made from.
type Look struct {
	// Name is true if the host can be the name of a host.
	Name bool
	// All is true if the table has the routes of all hosts.
	All bool
	// Connected is true if the server can be asked.
	Connected bool
	// Known is true if the server has said that no project claims the host.
	Known bool
	// Asked is true if the server has been asked about the host, and has not answered yet.
	Asked bool
	// Questions, Waiting and ClientWaiting are the present numbers of what Limits limits.
	Questions, Waiting, ClientWaiting int
}

// Decide decides about a request.
func Decide(l Look, most Limits) Verb {
	switch {
	case !l.Name, l.All, l.Known:
		return Unknown
	case l.Waiting >= most.Waiting || l.ClientWaiting >= most.ClientWaiting:
		return Busy
	case l.Asked:
		return Wait
	case !l.Connected:
		return Away
	case l.Questions >= most.Questions:
		return Busy
	default:
		return Ask
	}
}

// Host is a host in the table of routes.
type Host struct {
	Name string
	Used time.Time // of the last request
}

// Expired returns the hosts to forget: those without a request for a while, and those that were used longest ago if there are too
// many. A tenth is forgotten then, so that it is not done for each new host.
func Expired(hosts []Host, most Limits, now time.Time) []string {
	slices.SortFunc(hosts, func(a, b Host) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Name, b.Name)) })
	excess := 0
	if len(hosts) > most.Held {
		excess = len(hosts) - most.Held + most.Held/10
	}
	var names []string
	for i, h := range hosts {
		if i >= excess && now.Sub(h.Used) < most.Idle {
			break
		}
		names = append(names, h.Name)
	}
	return names
}
