package plan

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// row makes a row for one project, like the index.
func row(c *carav1.Claim, p *carav1.Project, change ...func(*Row)) Row {
	r := Row{Claim: c, Project: p}
	if c != nil {
		r.Name, r.Want, r.Status = c.Spec.Project.Metadata.Name, c.Spec.Hash, c.Status
	}
	if p != nil {
		r.Name, r.Live = p.Metadata.Name, api.ClaimHash(p)
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func override(scope string, change ...func(*carav1.Override)) func(*Row) {
	return func(r *Row) {
		r.Override = &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: r.Name}, Scope: scope, Actor: "user/ada", Reason: "incident 7", Since: timestamppb.New(testlaw.Now),
		}
		for _, f := range change {
			f(r.Override)
		}
	}
}

func rival(c *carav1.Claim) func(*Row) { return func(r *Row) { r.Rivals = append(r.Rivals, c) } }

func ownedBy(s *carav1.Source) func(*Row) { return func(r *Row) { r.Owner = s } }

func tombstone(reason string, expireAt *timestamppb.Timestamp) func(*Row) {
	return func(r *Row) {
		r.Tombstone = &carav1.Tombstone{
			Metadata: &carav1.ObjectMeta{Name: r.Name}, Reason: reason, Owner: "source/platform", ExpireAt: expireAt,
			Time: timestamppb.New(testlaw.Now.Add(-time.Minute)),
		}
	}
}
