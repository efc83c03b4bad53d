package loop

import "time"

// budget limits how often each key is processed. A queue cannot tell whether a run had an effect, but it can tell who
// requested it. So a run that only the previous run requested costs as much as a failed run:
//
//   - A run costs 1 if a caller requested it, and unaskedCost if it failed or if only its own last result requested it.
//   - The debt of a key shrinks by refill each second. A key that owes more than burst must wait.
//
// A key that always fails and is always retried immediately runs 15 times in a row and then once a second. A key that
// callers request all the time runs 20 times a second.
type budget struct {
	keys map[string]keyBudget
	runs int // runs since the last sweep
}

// keyBudget is the debt of one key.
type keyBudget struct {
	owed  float64
	at    time.Time // when owed was computed
	asked bool      // requested by a caller since its last run began
}

const (
	burst       = 300
	refill      = 20
	unaskedCost = 20
	sweepEvery  = 1000 // runs between two sweeps
)

func newBudget() *budget { return &budget{keys: map[string]keyBudget{}} }

func (b *budget) ask(key string) {
	d := b.keys[key]
	d.asked = true
	b.keys[key] = d
}

func (d keyBudget) now(now time.Time) float64 { return max(0, d.owed-refill*now.Sub(d.at).Seconds()) }

// begin returns how long a key must wait. If wait is 0, the run begins now, and asked reports whether a caller requested it.
func (b *budget) begin(key string, now time.Time) (wait time.Duration, asked bool) {
	d := b.keys[key]
	if over := d.now(now) - burst; over > 0 {
		return time.Duration(over / refill * float64(time.Second)), false
	}
	asked = d.asked
	d.asked = false
	b.keys[key] = d
	return 0, asked
}

func (b *budget) end(key string, asked, failed bool, now time.Time) {
	d := b.keys[key]
	cost := 1.0
	if failed || !asked {
		cost = unaskedCost
	}
	b.keys[key] = keyBudget{owed: d.now(now) + cost, at: now, asked: d.asked}
	if b.runs++; b.runs >= sweepEvery {
		b.runs = 0
		for key, d := range b.keys {
			if d.now(now) == 0 && !d.asked {
				delete(b.keys, key)
			}
		}
	}
}
