// Package testnet gives programs of a test a network of their own: machines with one address each, at one switch, that lose the
// packets that a test chooses.
//
// A machine is a network namespace. It takes the place of the network between the programs of a push, such as etcd's members. Packets
// are lost in the kernel: there is no reset and no end, and TCP repeats what is missing, as on a real network. Invariants: nothing is
// left when the process has ended, however it ends, because a namespace lasts as long as a process in it, and the devices of a
// namespace end with it. No rule of this machine's own firewall is changed.
package testnet

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
)

const (
	// ranges are networks for benchmarks (RFC 2544), which nobody else uses on this machine.
	ranges = "198.19."
	// patience is how long one command for the network may take.
	patience = time.Minute
	first    = 11 // the number of the first machine in its network
)

// Network is a switch with machines.
type Network struct {
	// Range is the network in CIDR notation, and Self is this machine's address in it.
	Range, Self string
	Machines    []*Machine

	plug *exec.Cmd // the switch's namespace
}

// Machine is one machine.
type Machine struct {
	// IP is its address. This machine and the other ones reach it there.
	IP string

	hold     *exec.Cmd
	network  *Network
	port     string // the machine's end in the switch
	firewall string // the program
}

// Start makes a network with so many machines. The caller closes it.
func Start(ctx context.Context, machines int) (*Network, error) {
	n := &Network{}
	if err := n.connect(ctx, machines); err != nil {
		return nil, errors.Join(fmt.Errorf("make a network of namespaces: %w", err), n.Close())
	}
	return n, nil
}

// New is Start for a test. It skips a test whose machine cannot have such a network: no root, or a program is missing. The network ends
// with the test.
func New(tb testing.TB, machines int) *Network {
	tb.Helper()
	n, err := Start(tb.Context(), machines)
	if err != nil {
		testneed.Missing(tb, "%v", err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

// Close removes all of it. The programs on the machines have ended before.
func (n *Network) Close() error {
	var errs []error
	for _, m := range n.Machines {
		errs = append(errs, end(m.hold))
	}
	return errors.Join(append(errs, end(n.plug))...)
}

// connect makes the switch in a namespace of its own, and connects this machine and the others.
func (n *Network) connect(ctx context.Context, machines int) (err error) {
	if n.plug, err = namespace(); err != nil {
		return err
	}
	number, err := n.reach(ctx)
	if err != nil {
		return err
	}
	n.Range, n.Self = fmt.Sprintf("%s%d.0/24", ranges, number), fmt.Sprintf("%s%d.1", ranges, number)
	err = errors.Join(
		inside(ctx, n.plug, "ip", "link", "add", "switch", "type", "bridge"),
		inside(ctx, n.plug, "ip", "link", "set", "switch", "up"),
		inside(ctx, n.plug, "ip", "link", "set", "host", "master", "switch", "up"),
		run(ctx, "ip", "addr", "add", n.Self+"/24", "dev", device(number)),
		run(ctx, "ip", "link", "set", device(number), "up"),
	)
	for i := 0; i < machines && err == nil; i++ {
		err = n.add(ctx, fmt.Sprintf("%s%d.%d", ranges, number, first+i))
	}
	return err
}

func device(number int) string { return fmt.Sprintf("cara-net-%d", number) }

// reach connects this machine with the switch, and returns the number of a network that nobody else has: the name of the device holds it.
func (n *Network) reach(ctx context.Context) (number int, err error) {
	for number = range 256 {
		err = run(ctx, "ip", "link", "add", device(number), "type", "veth", "peer", "name", "host", "netns", pid(n.plug))
		if err == nil || !strings.Contains(err.Error(), "File exists") {
			return number, err
		}
	}
	return 0, err
}

// add connects one more machine.
func (n *Network) add(ctx context.Context, ip string) error {
	hold, err := namespace()
	if err != nil {
		return err
	}
	m := &Machine{IP: ip, hold: hold, network: n, port: "p" + strconv.Itoa(len(n.Machines)), firewall: "iptables"}
	n.Machines = append(n.Machines, m)
	err = errors.Join(
		inside(ctx, hold, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", m.port, "netns", pid(n.plug)),
		inside(ctx, n.plug, "ip", "link", "set", m.port, "master", "switch", "up"),
		inside(ctx, hold, "ip", "addr", "add", ip+"/24", "dev", "eth0"),
		inside(ctx, hold, "ip", "link", "set", "eth0", "up"),
		inside(ctx, hold, "ip", "link", "set", "lo", "up"),
	)
	if err == nil && m.Heal(ctx) != nil {
		m.firewall = "iptables-legacy" // the kernel has no nf_tables
		err = m.Heal(ctx)
	}
	return err
}

// Enter is the command prefix of a program on this machine. It becomes that program, with the same process ID.
func (m *Machine) Enter() []string { return enter(m.hold) }

// Unplug takes the machine off the network until Plug.
func (m *Machine) Unplug(ctx context.Context) error {
	return inside(ctx, m.network.plug, "ip", "link", "set", m.port, "down")
}

// Plug ends Unplug.
func (m *Machine) Plug(ctx context.Context) error {
	return inside(ctx, m.network.plug, "ip", "link", "set", m.port, "up")
}

// Ignore loses all packets that another machine sends to this one, until Heal. Those in the other direction arrive.
func (m *Machine) Ignore(ctx context.Context, other *Machine) error {
	return m.lose(ctx, "INPUT", "--source", other.IP)
}

// Lose loses each packet to and from this machine with a probability, until Heal.
func (m *Machine) Lose(ctx context.Context, probability float64) error {
	rule := []string{"-m", "statistic", "--mode", "random", "--probability", strconv.FormatFloat(probability, 'f', 4, 64)}
	return errors.Join(
		m.lose(ctx, "INPUT", append([]string{"--in-interface", "eth0"}, rule...)...),
		m.lose(ctx, "OUTPUT", append([]string{"--out-interface", "eth0"}, rule...)...),
	)
}

func (m *Machine) lose(ctx context.Context, chain string, rule ...string) error {
	return inside(ctx, m.hold, slices.Concat([]string{m.firewall, "-w", "5", "-A", chain}, rule, []string{"-j", "DROP"})...)
}

// Heal ends everything that loses packets at this machine.
func (m *Machine) Heal(ctx context.Context) error {
	return inside(ctx, m.hold, m.firewall, "-w", "5", "-F")
}

// namespace starts a process that does nothing in a network namespace of its own.
func namespace() (*exec.Cmd, error) {
	hold := exec.Command("sleep", "infinity") //nolint:noctx // Close ends it
	hold.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := hold.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace (it needs root): %w", err)
	}
	return hold, nil
}

func pid(hold *exec.Cmd) string { return strconv.Itoa(hold.Process.Pid) }

func enter(hold *exec.Cmd) []string {
	return []string{"nsenter", "--net=/proc/" + pid(hold) + "/ns/net", "--"}
}

// end removes a namespace.
func end(hold *exec.Cmd) error {
	if hold == nil {
		return nil
	}
	if err := hold.Process.Kill(); err != nil {
		return fmt.Errorf("remove a network namespace: %w", err)
	}
	_ = hold.Wait() // it was killed
	return nil
}

// inside runs a command in a namespace.
func inside(ctx context.Context, hold *exec.Cmd, argv ...string) error {
	return run(ctx, append(enter(hold), argv...)...)
}

func run(ctx context.Context, argv ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // a test that ends takes its faults away, too
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
