package dispatch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestJoinLabels(t *testing.T) {
	token := &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "rack7"},
		Labels:   map[string]string{"rack": "7", "disk": "*", "zone": "eu-*"},
	}
	for name, tt := range map[string]struct {
		asked, want map[string]string
		err         string
	}{
		"none asked":              {nil, map[string]string{"rack": "7"}, ""},
		"a choice":                {map[string]string{"disk": "ssd", "zone": "eu-1"}, map[string]string{"rack": "7", "disk": "ssd", "zone": "eu-1"}, ""},
		"the token's own, again":  {map[string]string{"rack": "7"}, map[string]string{"rack": "7"}, ""},
		"another value":           {map[string]string{"rack": "8"}, nil, "rack=8"},
		"outside of the pattern":  {map[string]string{"zone": "us-1"}, nil, "zone=us-1"},
		"a key that is not there": {map[string]string{"role": "db"}, nil, `join token "rack7" does not allow the label role=db; make a token with --label role=db`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := joinLabels(token, tt.asked)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAddressProblem(t *testing.T) {
	const (
		fine, here, never = "everywhere", "on the server's host", "nowhere"
	)
	for address, want := range map[string]string{
		"":                            fine,
		"10.0.0.5:8081":               fine,
		"203.0.113.9:80":              fine,
		"[2001:db8::5]:8081":          fine,
		"[fd00::5]:8081":              fine,
		"node-1.example.test:8081":    fine,
		"127.0.0.1:8081":              here,
		"127.9.9.9:8081":              here,
		"[::1]:8081":                  here,
		"[::ffff:127.0.0.1]:8081":     here,
		"[::127.0.0.1]:8081":          here,
		"localhost:8081":              here,
		"LocalHost.:8081":             here,
		"a.localhost:8081":            here,
		"0.0.0.0:8081":                never,
		"0.1.2.3:8081":                never,
		"[::]:8081":                   never,
		"169.254.169.254:80":          never,
		"[::ffff:169.254.169.254]:80": never,
		"[fe80::1]:8081":              never,
		"[fe80::1%eth0]:8081":         never,
		"224.0.0.1:8081":              never,
		"[ff02::1]:8081":              never,
		"255.255.255.255:8081":        never,
		"2852039166:80":               never,
		"0x7f000001:80":               never,
		"127.1:80":                    never,
		":8081":                       never,
		"10.0.0.5":                    never,
		"10.0.0.5:":                   never,
		"10.0.0.5:0":                  never,
		"10.0.0.5:http":               never,
		"10.0.0.5:65536":              never,
	} {
		got := never
		switch {
		case addressProblem(address, false) == "":
			got = fine
		case addressProblem(address, true) == "":
			got = here
		}
		if got != want {
			t.Errorf("%q is passed on %s, want %s", address, got, want)
		}
		if why := addressProblem(address, false); why != "" && !strings.Contains(why, "--ingress-address") {
			t.Errorf("%q: %s", address, why)
		}
	}
}
