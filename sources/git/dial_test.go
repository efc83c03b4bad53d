package git

import (
	"net/netip"
	"testing"
)

func TestReachable(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::ffff:10.2.0.0/112"), netip.MustParsePrefix("fd00:1::/32")}
	for addr, want := range map[string]bool{
		"140.82.121.3": true, "::ffff:140.82.121.3": true, "2606:50c0:8000::153": true,
		"64:ff9b::140.82.121.3": true, "2002:8c52:7903::1": true, // NAT64 and 6to4 of a public address
		"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false, "::7f00:1": false, "::ffff:0:127.0.0.1": false,
		"64:ff9b::127.0.0.1": false, "64:ff9b::10.0.0.1": false, "64:ff9b:1::7f00:1": false, "2002:7f00:1::": false, "2002:a00:1::1": false,
		"2606:50c0::5efe:10.0.0.1": false, "2606:50c0::200:5efe:10.0.0.1": false, "2001:0:1::1": false,
		"fe80::1%eth0": false, "fe80::1": false, "fec0::1": false, "fc00::1": false, "ff02::1": false, "::": false, "2001:db8::1": false, "100::1": false,
		"0.0.0.0": false, "10.0.0.1": false, "100.64.0.1": false, "169.254.169.254": false, "172.16.0.1": false, "192.168.1.1": false,
		"192.0.2.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true, "10.2.0.7": true, "fd00:1::7": true, "fd00:2::7": false,
	} {
		if got := reachable(netip.MustParseAddr(addr), allow); got != want {
			t.Errorf("%s: reachable %v, want %v", addr, got, want)
		}
		if err := checkAddress(netip.MustParseAddr(addr), allow); (err == nil) != want {
			t.Errorf("%s: %v, want allowed %v", addr, err, want)
		}
	}
}

// A proxy resolves the names, so only the host itself can be checked.
func TestCheckHost(t *testing.T) {
	for host, want := range map[string]bool{
		"git.example.com": true, "140.82.121.3": true, "[2606:50c0:8000::153]": true, "1.example.com": true, "0x.example": true,
		"localhost": false, "LOCALHOST.": false, "a.localhost": false, "127.0.0.1": false, "127.1": false, "2130706433": false,
		"0x7f000001": false, "0177.0.0.1": false, "[::1]": false, "::127.0.0.1": false, "127.0.0.1.": false,
	} {
		if err := checkHost(host, nil); (err == nil) != want {
			t.Errorf("%s: %v, want allowed %v", host, err, want)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for raw, want := range map[string]address{
		"https://h/a%23b%3Fc%25d.git": {scheme: "https", host: "h", path: "/a#b?c%d.git", raw: "/a%23b%3Fc%25d.git"},
		"ssh://git@h/~/r.git":         {scheme: "ssh", host: "h:22", user: "git", path: "~/r.git"},
		"ssh://h:2222/~ada/r%20s.git": {scheme: "ssh", host: "h:2222", user: "git", path: "~ada/r s.git"},
		"ssh://h/srv/r.git":           {scheme: "ssh", host: "h:22", user: "git", path: "/srv/r.git"},
		"ada@h:~/r.git":               {scheme: "ssh", host: "h:22", user: "ada", path: "~/r.git"},
		"ada@[::1]:r.git":             {scheme: "ssh", host: "[::1]:22", user: "ada", path: "r.git"},
		"[h:2222]:r.git":              {scheme: "ssh", host: "h:2222", user: "git", path: "r.git"},
		"file:///srv/a%23b.git":       {scheme: "file", path: "/srv/a#b.git"},
		"/srv/a%23b.git":              {scheme: "file", path: "/srv/a%23b.git"},
	} {
		if got, err := parseAddress(raw); got != want || err != nil {
			t.Errorf("%s: %+v %v, want %+v", raw, got, err, want)
		}
	}
}

func TestHighest(t *testing.T) {
	for within, want := range map[string]string{
		">=1.0.0": "refs/tags/v1.10.0", "~1.2": "refs/tags/1.2.0", ">=2": "", ">=2.0.0-0": "refs/tags/v2.0.0-rc.1",
	} {
		l := &listing{refs: map[string]ref{}}
		for _, tag := range []string{"20240922", "v1.2", "1", "v1.10.0", "1.2.0", "v2.0.0-rc.1", "release-3.0.0", "v20250101", "vv9.9.9"} {
			l.refs["refs/tags/"+tag] = ref{hash: "x"}
		}
		if got := highest(within, l); got != want {
			t.Errorf("%s: %q, want %q", within, got, want)
		}
	}
}

func TestCredentialsAreScrubbed(t *testing.T) {
	c, err := readCredentials(address{scheme: "https"}, map[string][]byte{"username": []byte("ada.lovelace"), "password": []byte("p@ss/word 1")}, false)
	if err != nil {
		t.Fatal(err)
	}
	const said = "user ada.lovelace: p@ss/word 1, p%40ss%2Fword+1, p%40ss%2Fword%201, YWRhLmxvdmVsYWNlOnBAc3Mvd29yZCAx, cEBzcy93b3JkIDE="
	if got, want := c.scrub(said), "user <redacted>: <redacted>, <redacted>, <redacted>, <redacted>, <redacted>"; got != want {
		t.Errorf("scrubbed %q, want %q", got, want)
	}
	c, err = readCredentials(address{scheme: "https"}, map[string][]byte{"username": []byte("git"), "password": []byte("abc")}, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.scrub("git: abc, not a digit of abcd"), "<redacted>: <redacted>, not a digit of abcd"; got != want {
		t.Errorf("scrubbed %q, want %q", got, want)
	}
}
