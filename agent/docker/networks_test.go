package docker

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

func TestFreeSubnet(t *testing.T) {
	for name, c := range map[string]struct {
		pool  string
		taken []string
		want  string
	}{
		"empty":                   {pool: "10.213.0.0/16", want: "10.213.0.0/27"},
		"the lowest":              {pool: "10.213.0.0/16", taken: []string{"10.213.0.0/27", "10.213.0.64/27"}, want: "10.213.0.32/27"},
		"a larger one inside":     {pool: "10.213.0.0/16", taken: []string{"10.213.0.0/24"}, want: "10.213.1.0/27"},
		"a smaller one inside":    {pool: "10.213.0.0/16", taken: []string{"10.213.0.8/29"}, want: "10.213.0.32/27"},
		"others":                  {pool: "10.213.0.0/16", taken: []string{"172.17.0.0/16", "10.212.0.0/16"}, want: "10.213.0.0/27"},
		"one around":              {pool: "10.213.0.0/16", taken: []string{"10.0.0.0/8"}},
		"full":                    {pool: "10.213.0.0/26", taken: []string{"10.213.0.0/27", "10.213.0.32/27"}},
		"the last":                {pool: "10.213.0.0/26", taken: []string{"10.213.0.0/27"}, want: "10.213.0.32/27"},
		"the end of all there is": {pool: "255.255.255.192/26", taken: []string{"255.255.255.192/27"}, want: "255.255.255.224/27"},
		"the end is taken":        {pool: "255.255.255.192/26", taken: []string{"255.255.255.224/27"}, want: "255.255.255.192/27"},
		"all of the end":          {pool: "255.255.255.192/26", taken: []string{"255.255.255.192/26"}},
	} {
		t.Run(name, func(t *testing.T) {
			var taken []netip.Prefix
			for _, s := range c.taken {
				taken = append(taken, netip.MustParsePrefix(s))
			}
			got, ok := freeSubnet(netip.MustParsePrefix(c.pool), subnetBits, taken)
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("got %v, %v, want %q", got, ok, c.want)
			}
		})
	}
}

func TestNarrow(t *testing.T) {
	var addresses []net.Addr
	for _, text := range []string{"10.213.0.65/27", "10.213.1.9/29", "10.213.2.1/26", "10.0.0.7/8", "127.0.0.1/8", "10.213.3.1/32", "fe80::1/64"} {
		ip, subnet, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, &net.IPNet{IP: ip, Mask: subnet.Mask})
	}
	for bits, want := range map[int]string{
		27: "[10.213.0.64/27 10.213.1.8/29 10.213.3.1/32]",
		26: "[10.213.0.64/27 10.213.1.8/29 10.213.2.0/26 10.213.3.1/32]",
	} {
		if got := fmt.Sprint(narrow(addresses, bits)); got != want {
			t.Errorf("/%d: got %s, want %s", bits, got, want)
		}
	}
}

func TestSubnetFitsTheProject(t *testing.T) {
	for containers, want := range map[int]int{1: 27, 29: 27, 30: 26, 61: 26, 62: 25, 70: 25, 200: 24, 254: 23} {
		if got := bitsFor(containers); got != want {
			t.Errorf("%d containers get a /%d, want /%d", containers, got, want)
		}
	}
	pool := netip.MustParsePrefix("10.1.0.0/24")
	taken := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/27"), netip.MustParsePrefix("10.1.0.96/27")}
	for bits, want := range map[int]string{27: "10.1.0.32/27", 26: "10.1.0.128/26", 25: "10.1.0.128/25", 24: "", 23: ""} {
		got, ok := freeSubnet(pool, bits, taken)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("/%d: got %s %v, want %q", bits, got, ok, want)
		}
	}
}
