package login

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// slower is what the interval between two questions grows by when the provider asks for that (RFC 8628, section 3.5).
	slower = 5 * time.Second
	// The interval is between these.
	minInterval, maxInterval = time.Second, time.Minute
)

// OnDevice shows where the person logs in on any device, and asks the server until that is done.
func (t Terminal) OnDevice(ctx context.Context) (*carav1.FinishLoginResponse, error) {
	ctx, cancel := t.limited(ctx)
	defer cancel()
	d, err := t.Sessions.StartDeviceLogin(ctx, &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(t.Err, "Open this address on any device:  %s\nand enter the code:               %s\n", term.Line(d.GetUrl()), term.Line(d.GetCode()))
	if d.GetCompleteUrl() != "" {
		fmt.Fprintf(t.Err, "This address has the code:        %s\n", term.Line(d.GetCompleteUrl()))
	}
	fmt.Fprintf(t.Err, "Waiting until you have logged in, at most until %s. Ctrl-C cancels the login.\n", d.GetExpireAt().AsTime().UTC().Format(time.RFC3339))
	return t.poll(ctx, d)
}

// poll asks until the person has logged in or is refused. A server or provider that does not answer for a moment does not end the
// login.
func (t Terminal) poll(ctx context.Context, d *carav1.StartDeviceLoginResponse) (*carav1.FinishLoginResponse, error) {
	wait, silent := min(max(d.GetInterval().AsDuration(), minInterval), maxInterval), false
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		done, err := t.Sessions.FinishLogin(ctx, &carav1.FinishLoginRequest{Handle: d.GetHandle()})
		switch {
		case ctx.Err() != nil && err != nil:
			return nil, context.Cause(ctx)
		case api.Code(err) == codes.Unavailable:
			if !silent {
				fmt.Fprintf(t.Err, "No answer (%s). Trying again.\n", term.Line(api.ProblemOf(err).GetDetail()))
			}
			silent = true
		case err != nil:
			return nil, err
		case !done.GetPending():
			return done, nil
		default:
			silent = false
		}
		if done.GetSlower() {
			wait = min(wait+slower, maxInterval)
		}
	}
}
