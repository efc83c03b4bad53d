package model

import "math"

// Never is the end of an operation with an unknown outcome: it may still be done.
const Never = int64(math.MaxInt64 / 2)

// Operation is one call by one client. All times of a history are nanoseconds since its start, by one clock.
type Operation struct {
	Client int   `json:"client"`
	Start  int64 `json:"start"`
	End    int64 `json:"end"`
	Server int   `json:"server"`
	Call
	Result
}

// Listing is a list of all projects at one revision.
type Listing struct {
	Client   int            `json:"client"`
	Server   int            `json:"server"`
	Start    int64          `json:"start"`
	End      int64          `json:"end"`
	Revision int64          `json:"revision"`
	Values   map[string]int `json:"values"`
}

// Event is one change of one project, as a watch told it.
type Event struct {
	Revision   int64    `json:"revision"` // of the transaction
	Version    int64    `json:"version"`  // of the object; 0 if it was deleted
	Received   int64    `json:"received"`
	Key        string   `json:"key"`
	Deleted    bool     `json:"deleted,omitempty"`
	Value      int      `json:"value"`
	UID        string   `json:"uid,omitempty"`
	Generation int32    `json:"generation,omitempty"`
	Epoch      int32    `json:"epoch,omitempty"`
	Node       string   `json:"node,omitempty"`
	Phase      string   `json:"phase,omitempty"`
	Hosts      []string `json:"hosts,omitempty"`
	Why        string   `json:"why,omitempty"` // of a Failed project
}

// Segment is what one watch told without a gap, over any number of streams: the state at From, and then every change up to
// To.
type Segment struct {
	From    int64   `json:"from"`
	To      int64   `json:"to"`
	Initial []Event `json:"initial,omitempty"`
	Events  []Event `json:"events"`
	Streams int     `json:"streams"`
}

// Watch is everything that one watcher was told. A new segment begins when the server no longer has the history.
type Watch struct {
	Watcher  int       `json:"watcher"`
	Segments []Segment `json:"segments"`
}

// Fault is one fault of a run.
type Fault struct {
	Start int64  `json:"start"`
	End   int64  `json:"end"`
	Name  string `json:"name"`
}

// Term is a line in the log of a server: it got the lease of a loop, or the loop has written. Both are revisions of etcd.
type Term struct {
	Server int    `json:"server"`
	Loop   string `json:"loop"`
	Lease  int64  `json:"lease"`
	Write  int64  `json:"write,omitempty"` // 0 if the server got the lease
}

// Push is one commit that reached the git server, with the projects that it declares, by name, and their images.
type Push struct {
	At       int64             `json:"at"`
	Commit   string            `json:"commit"`
	Declared map[string]string `json:"declared"`
}

// History is all that happened in a run, as its clients saw it.
type History struct {
	Scenario   string      `json:"scenario"`
	Seed       uint64      `json:"seed"`
	Operations []Operation `json:"operations"`
	Listings   []Listing   `json:"listings"`
	Watches    []Watch     `json:"watches"`
	Faults     []Fault     `json:"faults"`
	Pushes     []Push      `json:"pushes,omitempty"`
	Terms      []Term      `json:"terms,omitempty"`
	// StaleReads is true if several servers answer, each from its own cache. Reads may then be old, and Check gets none.
	StaleReads bool `json:"staleReads,omitempty"`
}
