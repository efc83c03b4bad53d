package ui_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testoidc"
)

// clientSecret has the characters that client_secret_basic must escape.
const clientSecret = "s3cret+/ :%&=\u00e4"

// A confidential client logs people in, renews their sessions and logs in other devices. Without the right secret it does nothing, says
// why, and shows nobody the secret.
func TestOpenIDConfidentialClient(t *testing.T) {
	s, p := organisationWith(t, false, true, clientSecret, clientSecret)
	p.Set(testoidc.Control{Groups: []string{"dev"}, Seconds: 2})
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Fatalf("login: %d\n%s", status, page)
	}
	p.Set(testoidc.Control{Groups: []string{"ops"}, Seconds: 3600})
	until(t, "the session is renewed", func() bool { return strings.Contains(read(t, s.get(t, c, "/ui/", nil)), "role admin") })

	sessions := carav1.NewSessionServiceClient(s.conn(t, ""))
	device, err := sessions.StartDeviceLogin(t.Context(), &emptypb.Empty{})
	must(t, err)
	p.Approve(device.GetCode())
	until(t, "the device is logged in", func() bool {
		done, err := sessions.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Handle: device.GetHandle()})
		return err == nil && done.GetToken() != ""
	})
	s.silent(t, clientSecret)
}

func TestOpenIDWrongSecret(t *testing.T) {
	s, p := organisationWith(t, false, true, "another-secret", clientSecret)
	c := client(t)
	status, page := s.back(t, c, p.Login(s.begin(t, c)))
	if status != http.StatusServiceUnavailable || !strings.Contains(page, "invalid_client") || strings.Contains(page, "another-secret") {
		t.Errorf("login: %d, want 503 and what the provider says\n%s", status, page)
	}
	if resp := s.get(t, c, "/ui/", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("after that: %s, want the login", resp.Status)
	}
	s.silent(t, "another-secret")
}
