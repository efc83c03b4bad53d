package meter

import "time"

// reading is what a container has used since it started, and its memory at that time.
type reading struct {
	at             time.Time
	cpu            time.Duration // of all processors together
	memory         int64         // bytes, without page cache that the kernel can drop
	received, sent int64         // bytes
}

// since returns what a container used between two readings. After a restart the kernel counts from 0 again, and after the first
// reading there is nothing to compare: then only the memory is known.
func (r reading) since(before reading) Values {
	v := nothing()
	v.Memory = float32(max(r.memory, 0))
	seconds := r.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 || r.cpu < before.cpu || r.received < before.received || r.sent < before.sent {
		return v
	}
	v.CPUMillis = float32((r.cpu - before.cpu).Seconds() / seconds * 1000)
	v.Received = float32(float64(r.received-before.received) / seconds)
	v.Sent = float32(float64(r.sent-before.sent) / seconds)
	return v
}

// tally is how many requests a service has received, at some time.
type tally struct {
	at    time.Time
	count uint64
}

// since returns the requests a second. They are unknown at first, and after the count has begun again.
func (t tally) since(before tally) float32 {
	seconds := t.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 || t.count < before.count {
		return unknown
	}
	return float32(float64(t.count-before.count) / seconds)
}
