package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Addresses of the machines of `make demo HA=1`: a range for benchmarks (RFC 2544), which nobody else uses on this machine.
const (
	haNet     = "198.18.77."
	haSelf    = haNet + "1"
	haEtcd    = 11 // the first of three
	haServers = 21 // the first of three
	haSwitch  = "cara-ha-net"
	haHost    = "cara-ha-host" // this machine's end
)

// machine is a network namespace with one address, which is like a machine for the network.
type machine struct {
	name string // of the namespace
	ip   string
}

func machines(first int, kind string) (out [3]machine) {
	for i := range out {
		out[i] = machine{fmt.Sprintf("cara-ha-%s%d", kind, i+1), fmt.Sprintf("%s%d", haNet, first+i)}
	}
	return out
}

// enter is the command prefix of a program on this machine.
func (m machine) enter() []string { return []string{"nsenter", "--net=/var/run/netns/" + m.name, "--"} }

// cut takes the machine off the network, and heal brings it back.
func (m machine) cut(ctx context.Context) error {
	return ip(ctx, "-n", haSwitch, "link", "set", m.port(), "down")
}

func (m machine) heal(ctx context.Context) error {
	return ip(ctx, "-n", haSwitch, "link", "set", m.port(), "up")
}

// port is the machine's end in the switch; a name of a device has at most 15 characters.
func (m machine) port() string { return "p" + strings.TrimPrefix(m.ip, haNet) }

// connect makes the switch, with this machine at it. The switch is a namespace of its own, so that no rule of this machine's
// firewall is in the way.
func connect(ctx context.Context, all ...machine) error {
	steps := [][]string{
		{"netns", "add", haSwitch},
		{"-n", haSwitch, "link", "add", "sw", "type", "bridge"},
		{"-n", haSwitch, "link", "set", "sw", "up"},
		{"link", "add", haHost, "type", "veth", "peer", "name", "host", "netns", haSwitch},
		{"-n", haSwitch, "link", "set", "host", "master", "sw", "up"},
		{"addr", "add", haSelf + "/24", "dev", haHost},
		{"link", "set", haHost, "up"},
	}
	for _, m := range all {
		steps = append(steps, [][]string{
			{"netns", "add", m.name},
			{"-n", m.name, "link", "add", "eth0", "type", "veth", "peer", "name", m.port(), "netns", haSwitch},
			{"-n", haSwitch, "link", "set", m.port(), "master", "sw", "up"},
			{"-n", m.name, "addr", "add", m.ip + "/24", "dev", "eth0"},
			{"-n", m.name, "link", "set", "eth0", "up"},
			{"-n", m.name, "link", "set", "lo", "up"},
		}...)
	}
	for _, step := range steps {
		if err := ip(ctx, step...); err != nil {
			return err
		}
	}
	return nil
}

// disconnect removes all of it, also what an earlier demo left.
func disconnect(ctx context.Context, all ...machine) error {
	var errs []error
	for _, m := range append(all, machine{name: haSwitch}) {
		if err := ip(ctx, "netns", "delete", m.name); err != nil && !strings.Contains(err.Error(), "No such file") {
			errs = append(errs, err)
		}
	}
	if err := ip(ctx, "link", "delete", haHost); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		errs = append(errs, err) // it goes with the switch, a moment later
	}
	return errors.Join(errs...)
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
