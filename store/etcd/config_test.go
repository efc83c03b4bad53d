package etcd

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestConfigNamesTheMistake(t *testing.T) {
	at := func(endpoints ...string) Config { return Config{Endpoints: endpoints} }
	many := make([]string, maxEndpoints+1)
	for name, test := range map[string]struct {
		cfg  Config
		want string // "" is valid
	}{
		"loopback":           {at("http://127.0.0.1:2379", "http://localhost:2379", "http://[::1]:2379"), ""},
		"https":              {at("https://10.0.0.1:2379"), ""},
		"none":               {at(), "0 etcd endpoints are given"},
		"too many":           {at(many...), "17 etcd endpoints"},
		"no scheme":          {at("10.0.0.1:2379"), "https://HOST:PORT"},
		"no port":            {at("https://10.0.0.1"), "want https://HOST:PORT"},
		"path":               {at("https://10.0.0.1:2379/cara"), "want https://HOST:PORT"},
		"plain":              {at("http://10.0.0.1:2379"), "use https"},
		"user":               {at("https://root:hunter2@10.0.0.1:2379"), "without a user"},
		"mixed":              {at("https://10.0.0.1:2379", "http://127.0.0.1:2379"), "https for all of them"},
		"unused certificate": {Config{Endpoints: []string{"http://127.0.0.1:2379"}, TLS: &tls.Config{}}, "must begin with https://"},
		"prefix":             {Config{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "cara"}, "between two slashes"},
		"long prefix":        {Config{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "/" + strings.Repeat("x", maxPrefix) + "/"}, "at most 64 bytes"},
		"user alone":         {Config{Endpoints: []string{"http://127.0.0.1:2379"}, Username: "cara"}, "both the user and the password"},
		"negative":           {Config{Endpoints: []string{"http://127.0.0.1:2379"}, Timeout: -time.Second}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}
