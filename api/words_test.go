package api_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestErrors(t *testing.T) {
	err := api.NotFound("there is no project %q", "x")
	wrapped := fmt.Errorf("get project: %w", err)
	p := api.ProblemOf(wrapped)
	if p.GetTitle() != "NotFound" || p.GetStatus() != 404 || p.GetDetail() != `there is no project "x"` {
		t.Errorf("got %v", p)
	}
	if !api.IsNotFound(wrapped) || api.IsConflict(wrapped) || api.IsNotFound(nil) {
		t.Error("wrong sort")
	}
	invalid := api.Invalid(`project "x"`, []*carav1.FieldError{{Field: "spec", Message: "is required"}, {Field: "kind", Message: "is wrong"}})
	p = api.ProblemOf(invalid)
	if p.GetStatus() != 400 || len(p.GetErrors()) != 2 || p.GetDetail() != `project "x" is invalid: spec: is required (and 1 more)` {
		t.Errorf("got %v", p)
	}
	if p := api.ProblemOf(errors.New("boom")); p.GetTitle() != "Internal" || p.GetStatus() != 500 || p.GetDetail() != "boom" {
		t.Errorf("got %v", p)
	}
	if p := api.ProblemOf(status.Error(codes.Aborted, "stale")); p.GetTitle() != "Conflict" || p.GetStatus() != 409 {
		t.Errorf("got %v", p)
	}
	if api.Code(fmt.Errorf("x: %w", context.DeadlineExceeded)) != codes.DeadlineExceeded {
		t.Error("a deadline has no code")
	}
	if api.ProblemOf(nil) != nil {
		t.Error("a problem out of nothing")
	}
	if api.Errorf(codes.OK, "x", "still an error") == nil {
		t.Error("an error with code OK vanished")
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if s := api.HTTPStatus(code); s < 200 || s > 599 {
			t.Errorf("%s is %d", code, s)
		}
	}
}

func TestSetCondition(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	t1 := t0.Add(time.Hour)
	ready := &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, Reason: "Waiting"}
	cs, changed := api.SetCondition(nil, ready, t0)
	if !changed || !cs[0].GetLastTransitionTime().AsTime().Equal(t0) || ready.GetLastTransitionTime() != nil {
		t.Fatalf("got %v", cs)
	}
	if _, changed = api.SetCondition(cs, ready, t1); changed {
		t.Error("the same condition is a change")
	}
	before := proto.CloneOf(cs[0])
	next, changed := api.SetCondition(cs, &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, Reason: "Other"}, t1)
	if !changed || !next[0].GetLastTransitionTime().AsTime().Equal(t0) {
		t.Errorf("another reason: %v", next)
	}
	next, changed = api.SetCondition(cs, &carav1.Condition{Type: api.CondReady, Status: api.StatusTrue}, t1)
	if !changed || !next[0].GetLastTransitionTime().AsTime().Equal(t1) || !api.IsTrue(next, api.CondReady) {
		t.Errorf("another status: %v", next)
	}
	if !proto.Equal(before, cs[0]) {
		t.Error("the argument was changed")
	}
	if next, changed = api.RemoveCondition(cs, api.CondReady); !changed || len(next) != 0 || len(cs) != 1 {
		t.Errorf("removed: %v", next)
	}
	if api.FindCondition(cs, "Nope") != nil {
		t.Error("found what is not there")
	}
}

func TestJoinToken(t *testing.T) {
	want := api.JoinToken{CAHash: strings.Repeat("ab", 32), ID: "t1", Secret: "S3cret_-"}
	got, err := api.ParseJoinToken(" " + want.String() + "\n")
	if err != nil || got != want {
		t.Errorf("%v %v", got, err)
	}
	if strings.Contains(want.LogValue().String(), "S3cret") {
		t.Error("the secret is logged")
	}
	for _, bad := range []string{
		"", "CARA1", "CARA2." + strings.Repeat("ab", 32) + ".a.b", "CARA1.zz.a.b", "CARA1." + strings.Repeat("ab", 32) + "..b",
		"CARA1." + strings.Repeat("ab", 32) + ".a.b/c", strings.Repeat("x", 2000),
	} {
		if _, err := api.ParseJoinToken(bad); err == nil || (len(bad) > 10 && strings.Contains(err.Error(), bad)) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestHost(t *testing.T) {
	full := api.HostTemplate{BaseDomain: "example.com", Environment: "dev"}
	cases := []struct {
		template   api.HostTemplate
		host, want string
	}{
		{full, "shop", "shop.dev.example.com"},
		{full, "Shop.Example.ORG", "shop.example.org"},
		{full, "shop.example.org.", "shop.example.org"},
		{api.HostTemplate{BaseDomain: ".example.com."}, "shop", "shop.example.com"},
		{api.HostTemplate{}, "Shop", "shop"},
		{full, "", ""},
	}
	for _, tc := range cases {
		if got := tc.template.Host(tc.host); got != tc.want {
			t.Errorf("%+v %q: got %q, want %q", tc.template, tc.host, got, tc.want)
		}
	}
}

func TestWrapUnwrap(t *testing.T) {
	kinds := []string{
		api.KindProject, api.KindNode, api.KindSource, api.KindSecret, api.KindEvent, api.KindClaim, api.KindOverride,
		api.KindTombstone, api.KindToken,
	}
	for _, kind := range kinds {
		m := api.New(kind)
		if api.Kind(m) != kind || api.Unwrap(api.Wrap(m)) != m {
			t.Errorf("%s: %v", kind, m)
		}
	}
	if api.Wrap(&carav1.Condition{}) != nil || api.Unwrap(nil) != nil || api.Unwrap(&carav1.Object{Value: &carav1.Object_Node{}}) != nil {
		t.Error("an object out of nothing")
	}
	if api.Meta(&carav1.Project{}) != nil || api.Meta(&carav1.Project{Metadata: &carav1.ObjectMeta{Name: "x"}}).GetName() != "x" || api.Meta(&carav1.Condition{}) != nil {
		t.Error("metadata")
	}
}
