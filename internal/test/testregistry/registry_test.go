package testregistry

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// pull asks a real engine to pull and returns what went wrong, in the engine's words.
func pull(t *testing.T, host, ref, auth string, patience time.Duration) string {
	t.Helper()
	docker, err := testdocker.Client(host)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	t.Cleanup(func() { removeImage(t, host, ref) })
	stream, err := docker.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	decoder := json.NewDecoder(stream)
	for {
		var line struct{ Error string }
		switch err := decoder.Decode(&line); {
		case err == io.EOF:
			return ""
		case err != nil:
			return err.Error()
		case line.Error != "":
			return line.Error
		}
	}
}

func TestPullThroughFaults(t *testing.T) {
	host := testdocker.Engine(t)
	login, err := json.Marshal(map[string]string{"username": "u", "password": "p"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		fault    Fault
		user     string
		auth     string
		patience time.Duration
		want     string // part of the engine's message; empty: the pull works
	}{
		{name: "good"},
		{name: "404", fault: Fault{Status: http.StatusNotFound}, want: "not found"},
		{name: "429", fault: Fault{Status: http.StatusTooManyRequests, RetryAfter: 3 * time.Second}, want: "toomanyrequests"},
		{name: "500", fault: Fault{Status: http.StatusInternalServerError}, want: "Internal Server Error"},
		{name: "500 once, and the engine asks again by itself", fault: Fault{Status: http.StatusInternalServerError, First: 1}},
		{name: "hang", fault: Fault{Hang: true}, patience: 500 * time.Millisecond, want: "deadline"},
		{name: "hang in the middle of a blob", fault: Fault{HangBlobs: true}, patience: time.Second, want: "deadline"},
		{name: "slow", fault: Fault{BytesPerSecond: 200_000}},
		{name: "no login", user: "u", want: "no basic auth credentials"},
		{name: "login", user: "u", auth: base64.URLEncoding.EncodeToString(login)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := New(t)
			ref := r.PushPadded(t, testimage.Job, "team/job:v1", 100_000)
			r.Set(tt.fault)
			if tt.user != "" {
				r.Login(tt.user, "p")
			}
			if tt.patience == 0 {
				tt.patience = time.Minute
			}
			got := pull(t, host, ref, tt.auth, tt.patience)
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("pull says %q, want %q", got, tt.want)
			}
			if pulls := r.Pulls("team/job"); tt.want == "" && pulls == 0 {
				t.Errorf("%d pulls counted, want some", pulls)
			}
		})
	}
}

func TestPullAfterOutage(t *testing.T) {
	host := testdocker.Engine(t)
	r := New(t)
	ref := r.PushPadded(t, testimage.Job, "job:v1", 1000)
	restore := r.Outage(t)
	if got := pull(t, host, ref, "", time.Minute); !strings.Contains(got, "connection refused") {
		t.Errorf("while down: %q, want connection refused", got)
	}
	restore()
	if got := pull(t, host, ref, "", time.Minute); got != "" {
		t.Errorf("up again: %q", got)
	}
}

func TestRetryAfter(t *testing.T) {
	r := New(t)
	r.Set(Fault{Status: http.StatusTooManyRequests, RetryAfter: 1500 * time.Millisecond, First: 1})
	for _, want := range []struct {
		status int
		retry  string
	}{{http.StatusTooManyRequests, "2"}, {http.StatusNotFound, ""}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL()+"/v2/none/manifests/v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		if response.StatusCode != want.status || response.Header.Get("Retry-After") != want.retry {
			t.Errorf("%s, Retry-After %q; want %+v", response.Status, response.Header.Get("Retry-After"), want)
		}
	}
}

// TestNoRefComesAgain: two registries have no reference in common, even at the same port. An engine would not pull the second.
func TestNoRefComesAgain(t *testing.T) {
	one, two := New(t), New(t)
	path := func(r *Registry) string { return strings.TrimPrefix(r.Ref("job:v1"), r.Addr()) }
	if path(one) == path(two) || !strings.HasSuffix(path(one), "/job:v1") {
		t.Errorf("the references are %s and %s", one.Ref("job:v1"), two.Ref("job:v1"))
	}
}
