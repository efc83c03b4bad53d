package loop

import "time"

// budget bounds how often each key is worked on, whatever asks for it. A queue cannot know whether a piece of work had an effect. It can know
// who asked for it, so work that nobody but the work itself asked for costs as much as work that failed:
//
//   - Each piece of work costs 1 if something outside of it asked for it, and unaskedCost if it failed or if only its own last result asked.
//   - refill of the cost is forgiven each second. A key that owes more than burst waits until it does not.
//
// So a key that always fails, while every failure brings the hint to try again, is worked on 15 times at once and then once a second; one
// that is asked for all the time, 20 times a second.
type budget struct {
	keys map[string]keyBudget
	runs int // since forgiven keys were dropped
}

// keyBudget is what one key owes.
type keyBudget struct {
	owed  float64
	at    time.Time // when owed was true
	asked bool      // something outside asked for the key since its work began last
}

const (
	burst       = 300
	refill      = 20
	unaskedCost = 20
	sweepEvery  = 1000 // pieces of work between two sweeps
)

func newBudget() *budget { return &budget{keys: map[string]keyBudget{}} }

// ask records that something outside asks for a key.
func (b *budget) ask(key string) {
	d := b.keys[key]
	d.asked = true
	b.keys[key] = d
}

func (d keyBudget) now(now time.Time) float64 { return max(0, d.owed-refill*now.Sub(d.at).Seconds()) }

// begin says how long work on a key must wait; 0: it begins now, and asked tells who wanted it.
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

// end charges for a piece of work.
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
