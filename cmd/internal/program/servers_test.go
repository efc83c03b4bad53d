package program

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestDescription: other servers can read what a server says about itself, also an older one or one whose host has a strange name.
func TestDescription(t *testing.T) {
	whole := &carav1.Server{Id: "1", Address: "10.0.0.11:8080", Host: "a"}
	strange := &carav1.Server{Id: "1", Address: "10.0.0.11:8080", Host: "a\xff"}
	for name, tt := range map[string]struct {
		data []byte
		want *carav1.Server
	}{
		"whole":                    {encode(whole), whole},
		"a strange name":           {encode(strange), &carav1.Server{Id: "1", Address: "10.0.0.11:8080"}},
		"of an older version":      {[]byte("host, listening on 10.0.0.11:8080"), &carav1.Server{Host: "host, listening on 10.0.0.11:8080"}},
		"old, with a strange name": {[]byte("h\xff"), &carav1.Server{Host: "h\ufffd"}},
		"old and long":             {[]byte(strings.Repeat("é", maxAdvertise)), &carav1.Server{Host: strings.Repeat("é", maxAdvertise/2)}},
		"old, cut within a letter": {[]byte("x" + strings.Repeat("é", maxAdvertise)), &carav1.Server{Host: "x" + strings.Repeat("é", maxAdvertise/2-1)}},
	} {
		got := decode(tt.data)
		if !proto.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
		if _, err := proto.Marshal(got); err != nil {
			t.Errorf("%s: it cannot be sent: %v", name, err)
		}
	}
}

// TestAdvertisedName: people reach a server by TLS at the address that it advertises, also if that is another machine's, such as a router's.
func TestAdvertisedName(t *testing.T) {
	for advertise, want := range map[string][]string{
		"":                      {"cara.example.com"},
		"203.0.113.5:8080":      {"cara.example.com", "203.0.113.5"},
		"a.cara.example.com:80": {"cara.example.com", "a.cara.example.com"},
	} {
		c := &ServerConfig{Names: []string{"cara.example.com"}, Advertise: advertise}
		if got := c.identity().Names; !slices.Equal(got, want) {
			t.Errorf("--advertise %q: the certificate has %q, want %q", advertise, got, want)
		}
	}
}
