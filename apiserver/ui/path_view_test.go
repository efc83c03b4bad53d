package ui_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// A project shows what git would change, and an override of this project alone. The view follows the claim.
func TestComparedWithGit(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.owned(t, "shop")
	claim := func(image string) *carav1.Claim {
		declared := project("shop")
		declared.Spec.Services[0].Image = image
		hash := api.ClaimHash(declared)
		return &carav1.Claim{
			Metadata: &carav1.ObjectMeta{Name: "platform/shop"},
			Spec:     &carav1.ClaimSpec{Source: "platform", SourceUid: "uid-platform", Project: declared, Hash: hash, File: "shop.yaml", Line: 1, Present: true},
			Status:   &carav1.ClaimStatus{State: api.ClaimApplied, AppliedHash: hash, ProjectUid: "uid-shop"},
		}
	}
	same := claim("registry.example/app:1")
	s.put(t, same)
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Shows("#git + *", "as source platform declares it"))
	s.put(t, claim("registry.example/app:2"))
	must(t, tab.Shows("[aria-labelledby=git]", "would be configured"), tab.Shows("table.diff .new", "app:2"), tab.Shows("table.diff .old", "app:1"))
	s.put(t, override("shop", "a fix by hand"), override("blog", "of another project"))
	must(t, tab.Shows("#git", "overridden"), tab.Shows(".note.warn", "a fix by hand"))
	must(t, tab.Shows(".path [aria-current]", "overridden"))
	overrides, err := carav1.NewProjectServiceClient(s.conn(t, s.token)).ListOverrides(t.Context(), &carav1.ListOverridesRequest{Project: "shop"})
	must(t, err)
	if o := overrides.GetItems(); len(o) != 1 || o[0].GetReason() != "a fix by hand" {
		t.Errorf("overrides of shop: %v", o)
	}
}

func override(project, reason string) *carav1.Override {
	return &carav1.Override{
		Metadata: &carav1.ObjectMeta{Name: project}, Scope: api.OverrideSpec, Actor: "user/ada", Reason: reason,
		Since: timestamppb.Now(), Until: timestamppb.New(time.Now().Add(time.Hour)),
	}
}
