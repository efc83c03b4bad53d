// Package probe checks the health of containers: with HTTP, TCP or a command in the container. The results are part of the
// state from which agent/step decides.
//
// Each run of a container with a check has one goroutine, which ends with the run. Prober.Run owns them all. The message of
// a check contains no value of a Secret and no control character.
package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Prober checks the health of containers. A container that has not been healthy yet is probed often, so that a quick start
// is detected quickly. Its failures count only after its deadline: startPeriod plus retries times interval after its start.
// A container that has been healthy is probed every interval, and becomes unhealthy after retries consecutive failures.
type Prober struct {
	engine engine.Streams
	every  time.Duration
	notify func(project string)
	start  chan *probe

	mu     sync.Mutex
	probes map[step.Run]*probe
}

type probe struct {
	step.Check
	project string
	// The fields below are guarded by Prober.mu.
	health  step.Health
	probed  bool
	ended   bool
	cancel  context.CancelFunc // nil until the probe starts
	command *command           // of an exec check; only the probe's goroutine uses it
}

// New returns a Prober. It does nothing until Run. It calls notify when the health of a project's container changes. every
// is the longest interval between probes of a container that has not been healthy yet.
func New(eng engine.Streams, every time.Duration, notify func(string)) *Prober {
	return &Prober{
		engine: eng, every: every, notify: notify, start: make(chan *probe), probes: map[step.Run]*probe{},
	}
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer probes.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case one := <-p.start:
			probes.Go(func() { p.watch(ctx, one) })
		}
	}
}

// Sync replaces the checks of a project, and returns the known health of each container, by id.
func (p *Prober) Sync(ctx context.Context, project string, checks []step.Check) map[string]step.Health {
	known := map[string]step.Health{}
	wanted := map[step.Run]bool{}
	var begin []*probe
	p.mu.Lock()
	for _, t := range checks {
		wanted[t.Run] = true
		one := p.probes[t.Run]
		if t.How == nil && one != nil {
			t.How = one.How
		}
		if one != nil && one.IP != t.IP {
			p.end(one)
			one = nil
		}
		if one != nil {
			one.Values, one.Mute = t.Values, t.Mute
		}
		if one == nil && t.How != nil {
			one = &probe{Check: t, project: project, health: step.Health{State: api.HealthStarting}}
			p.probes[t.Run] = one
			begin = append(begin, one)
		}
		if one != nil && one.probed {
			known[t.Run.ID] = one.health
		}
	}
	for key, one := range p.probes {
		if one.project == project && !wanted[key] {
			p.end(one)
		}
	}
	p.mu.Unlock()
	for _, one := range begin {
		select {
		case p.start <- one:
		case <-ctx.Done():
		}
	}
	return known
}

// end ends a probe. mu is held.
func (p *Prober) end(one *probe) {
	one.ended = true
	if one.cancel != nil {
		one.cancel()
	}
	delete(p.probes, one.Run)
}

// timing is the timing of a check, from a normalised spec.
type timing struct {
	interval, timeout, startPeriod time.Duration
	retries                        int
}

func timingOf(c *carav1.Healthcheck) timing {
	parse := func(s string, def time.Duration) time.Duration {
		d, err := syntax.ParseDuration(s, def)
		if err != nil || d == 0 && def != 0 {
			return def // the server rejects such a value
		}
		return d
	}
	return timing{
		interval: parse(c.GetInterval(), api.DefaultCheckInterval), timeout: parse(c.GetTimeout(), api.DefaultCheckTimeout),
		startPeriod: parse(c.GetStartPeriod(), 0), retries: max(int(c.GetRetries()), 1),
	}
}

func (p *Prober) watch(ctx context.Context, one *probe) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	one.cancel = cancel
	ended := one.ended
	p.mu.Unlock()
	if ended {
		return
	}
	if one.How.GetExec() != nil {
		one.command = &command{engine: p.engine, container: one.Run.ID, args: one.How.GetExec().GetCommand()}
		defer one.command.wait()
		defer cancel() // before the wait, to end a command that still runs
	}
	t := timingOf(one.How)
	deadline := one.Run.Started.Add(t.startPeriod + time.Duration(t.retries)*t.interval)
	pause := min(50*time.Millisecond, p.every)
	failures := 0
	for ctx.Err() == nil {
		err := p.heard(one, p.check(ctx, one, t.timeout))
		if ctx.Err() != nil {
			return
		}
		next := one.health
		switch {
		case err == nil:
			next, failures = step.Health{State: api.HealthHealthy, Ever: true}, 0
		case one.health.Ever:
			if failures++; failures >= t.retries {
				next = step.Health{State: api.HealthUnhealthy, Ever: true, Message: err.Error()}
			}
		case time.Now().After(deadline):
			next = step.Health{State: api.HealthUnhealthy, Message: err.Error()}
		default:
			next = step.Health{State: api.HealthStarting, Message: err.Error()}
		}
		p.publish(one, next)
		wait := t.interval
		if !next.Ever {
			wait = min(pause, t.interval)
			pause = min(pause*2, p.every)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// heard returns a check's error without values of Secrets and control characters.
func (p *Prober) heard(one *probe, err error) error {
	if err == nil {
		return nil
	}
	p.mu.Lock()
	values, mute := one.Values, one.Mute
	p.mu.Unlock()
	if mute {
		return errors.New("the check fails; what it said " + step.NotShown)
	}
	return errors.New(text.Line(values.Text(err.Error())))
}

func (p *Prober) publish(one *probe, next step.Health) {
	p.mu.Lock()
	changed := !one.probed || one.health != next
	one.health, one.probed = next, true
	p.mu.Unlock()
	if changed {
		p.notify(one.project)
	}
}

func (p *Prober) check(ctx context.Context, one *probe, timeout time.Duration) error {
	if one.command != nil {
		return one.command.run(ctx, timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if c := one.How.GetHttp(); c != nil {
		return p.get(ctx, net.JoinHostPort(one.IP, strconv.Itoa(int(c.GetPort()))), c.GetPath())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(one.IP, strconv.Itoa(int(one.How.GetTcp().GetPort()))))
	if err != nil {
		return err
	}
	return conn.Close()
}

// get sends one GET on a separate connection, because a pool would continue dialing after the check was given up.
func (p *Prober) get(ctx context.Context, address, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "cara-agent")
	request.Close = true
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := request.Write(conn); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeaders)), request)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %s", path, response.Status)
	}
	return nil
}

// maxHeaders limits how much of a response is read. The body is ignored.
const maxHeaders = 64 << 10
