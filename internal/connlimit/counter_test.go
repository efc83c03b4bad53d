package connlimit

import (
	"net/netip"
	"testing"
)

func TestCounter(t *testing.T) {
	c := NewCounter(3, 2)
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	for i, step := range []struct {
		from  netip.Prefix
		leave bool
		here  int
		ok    bool
	}{
		{from: a, here: 1, ok: true},
		{from: a, here: 2, ok: true},
		{from: a}, // as many as one may have
		{from: b, here: 1, ok: true},
		{from: b}, // as many as all may have
		{from: a, leave: true},
		{from: b, here: 2, ok: true},
		{from: b, leave: true},
		{from: b, leave: true},
		{from: a, leave: true},
	} {
		if step.leave {
			c.Leave(step.from)
			continue
		}
		if here, ok := c.Enter(step.from); here != step.here || ok != step.ok {
			t.Errorf("step %d: %d, %v, want %d, %v", i, here, ok, step.here, step.ok)
		}
	}
	if total, addresses := c.Counts(); total != 0 || addresses != 0 {
		t.Errorf("%d are counted, from %d addresses", total, addresses)
	}
}
