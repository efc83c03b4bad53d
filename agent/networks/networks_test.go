package networks

import "testing"

func TestNetworks(t *testing.T) {
	list := []string{"10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "fe80::/10"}
	for _, tt := range []struct {
		list   []string
		client string
		want   bool
	}{
		{nil, "192.0.2.1", true},
		{nil, "unknown", true},
		{list, "10.255.255.255", true},
		{list, "11.0.0.0", false},
		{list, "192.0.2.7", true},
		{list, "192.0.2.8", false},
		{list, "::ffff:10.0.0.1", true},
		{list, "::ffff:11.0.0.1", false},
		{list, "2001:db8::1", true},
		{list, "2001:db9::1", false},
		{list, "fe80::1%eth0", true},
		{list, "", false},
		{list, "unknown", false},
		{list, "10.0.0.1, 192.0.2.9", false},
		{[]string{"0.0.0.0/0"}, "2001:db8::1", false},
		{[]string{"of a newer server"}, "10.0.0.1", false},
		{[]string{"of a newer server", "10.0.0.0/8"}, "10.0.0.1", true},
	} {
		if got := Parse(tt.list).Has(tt.client); got != tt.want {
			t.Errorf("%v has %q: %t, want %t", tt.list, tt.client, got, tt.want)
		}
	}
}
