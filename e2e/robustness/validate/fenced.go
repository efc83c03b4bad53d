package validate

import "github.com/caravanserai/cara/e2e/robustness/model"

// fenced checks what a loop has written, by the logs of the servers: nothing under a lease after another server got a later lease of the
// same loop. Revisions order leases and writes, so no clock counts.
func fenced(h *model.History) []string {
	p := &problems{}
	var leases, writes []model.Term // leases are few
	for _, t := range h.Terms {
		if t.Write == 0 {
			leases = append(leases, t)
		} else {
			writes = append(writes, t)
		}
	}
	for _, w := range writes {
		for _, other := range leases {
			if other.Loop == w.Loop && other.Lease > w.Lease && other.Lease < w.Write {
				p.add("server %d wrote revision %d for the loop %s under its lease of revision %d, after server %d had got the lease at revision %d",
					w.Server, w.Write, w.Loop, w.Lease, other.Server, other.Lease)
				break
			}
		}
	}
	return p.all()
}
