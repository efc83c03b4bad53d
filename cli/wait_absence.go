package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// absenceWithin limits the search for the reason why a project does not exist.
const absenceWithin = 10 * time.Second

// absence returns for each awaited project that does not exist the reason, as far as the sources know it.
func (a *app) absence(ctx context.Context, w *waiting) map[string]string {
	why := map[string]string{}
	for name, p := range w.open {
		if p == nil && w.appear {
			why[name] = "no source declares it; is the commit pushed, and does a source read its branch and path?"
		}
	}
	if len(why) == 0 {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, absenceWithin)
	defer cancel()
	if err := a.explainAbsence(ctx, why); err != nil {
		fmt.Fprintln(a.Err, "note: the sources do not answer:", term.Line(api.ProblemOf(err).GetDetail()))
	}
	return why
}

func (a *app) explainAbsence(ctx context.Context, why map[string]string) error {
	c := a.sources()
	sources, err := c.ListSources(ctx, &carav1.ListRequest{})
	if err != nil {
		return err
	}
	var broken []string
	claimed := map[string]bool{}
	for _, s := range sources.Items {
		name := s.GetMetadata().GetName()
		claims, err := c.ListClaims(ctx, &carav1.ListClaimsRequest{Source: name})
		if err != nil {
			return err
		}
		for _, claim := range claims.Items {
			if project := claim.GetSpec().GetProject().GetMetadata().GetName(); why[project] != "" && claim.GetSpec().GetPresent() {
				why[project], claimed[project] = api.PrefixSource+term.Line(name)+": "+claimText(claim), true
			}
		}
		if ready, message := kind.SourceState(s); ready.Text != api.StatusTrue {
			broken = append(broken, api.PrefixSource+term.Line(name)+": "+term.Line(message))
		}
	}
	for project := range why {
		if !claimed[project] && len(broken) > 0 {
			why[project] = "no source declares it, but not all sources can be read: " + term.Short(strings.Join(broken, "; "), 500)
		}
	}
	return nil
}

// claimText returns the state of a claim and its reason in one line.
func claimText(c *carav1.Claim) string {
	state := cmp.Or(c.GetStatus().GetState(), "not applied yet")
	message := cmp.Or(c.GetStatus().GetMessage(), c.GetSpec().GetHeld())
	return term.Line(strings.TrimSuffix(state+": "+message, ": "))
}

// claimed returns the projects that a source declares and that are applied. Of the others, it reports those that cannot run
// as git says as an error, or else prints a note.
func (o *reconcileOptions) claimed(ctx context.Context, c carav1.SourceServiceClient, s *carav1.Source) (names []string, err error) {
	claims, err := c.ListClaims(ctx, &carav1.ListClaimsRequest{Source: o.name})
	if err != nil {
		return nil, err
	}
	for _, claim := range claims.Items {
		name := claim.GetSpec().GetProject().GetMetadata().GetName()
		if !claim.GetSpec().GetPresent() || o.project != "" && name != o.project {
			continue
		}
		switch state := claim.GetStatus().GetState(); {
		case state == api.ClaimApplied && claim.GetSpec().GetHeld() == "":
			names = append(names, name)
		case o.project != "":
			return nil, term.Exit{Code: term.ExitFailed, Message: fmt.Sprintf("project %q does not run as source %q says: %s", name, o.name, claimText(claim))}
		default:
			fmt.Fprintf(o.Err, "project/%s is not awaited: %s\n", term.Line(name), claimText(claim))
		}
	}
	if o.project != "" && len(names) == 0 {
		return nil, o.undeclared(s)
	}
	return names, nil
}

func (o *reconcileOptions) undeclared(s *carav1.Source) error {
	text := fmt.Sprintf("source %q does not declare project %q at %s", o.name, o.project, api.ShortRevision(s.GetStatus().GetSnapshot().GetRevision()))
	if ready, message := kind.SourceState(s); ready.Text != api.StatusTrue {
		text += ": " + term.Line(message)
	}
	return errors.New(text)
}
