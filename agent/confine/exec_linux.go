package confine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// program is the file that the agent runs from.
const program = "/proc/self/exe"

// order is the first argument of the hidden command. The arguments after it are those of the confined program, and its path
// comes first.
type order struct {
	Access Access `json:"access"`
	// Death is the signal for the program when the agent dies.
	Death syscall.Signal `json:"death,omitempty"`
}

// Wrap changes a command so that it runs confined. Its path must be absolute, and its attributes must be set before.
func Wrap(cmd *exec.Cmd, access Access) error {
	o := order{Access: access}
	if cmd.SysProcAttr != nil {
		o.Death = cmd.SysProcAttr.Pdeathsig
	}
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("describe what %s can reach: %w", cmd.Path, err)
	}
	cmd.Args = append([]string{program, Command, string(text), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = program
	return nil
}

// Exec is the hidden command. It becomes the confined program with an environment, and returns only if it fails or if ctx has
// ended.
func Exec(ctx context.Context, args, environ []string) error {
	o, args, err := parse(args)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // this thread becomes the program
	self, err := unix.Open(program, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("open the agent's own program: %w", err)
	}
	// Landlock 3 (Linux 6.2) has all that concerns the content of files. Later ones limit devices and networks.
	if err := landlock.V3.BestEffort().RestrictPaths(rules(o.Access, args[0], environ)...); err != nil {
		return fmt.Errorf("confine %s: %w", args[0], err)
	}
	// The kernel has set this signal for the first thread only.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(o.Death), 0, 0, 0); err != nil {
		return fmt.Errorf("let %s end with the agent: %w", args[0], err)
	}
	if ctx.Err() != nil { // that signal may have come already
		return ctx.Err()
	}
	if err := unix.Exec(args[0], replace(args, self, os.Getpid()), environ); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	return nil
}

// Problem returns why this machine cannot confine programs, or "" if it can.
func Problem() string { return problem(llsys.LandlockGetABIVersion()) }

// problem judges the kernel's answer to the question which version of Landlock it has.
func problem(version int, err error) string {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "the kernel has no Landlock: it needs Linux 5.13, built with Landlock"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "Landlock is switched off: add landlock to the kernel's boot parameter lsm"
	case err != nil:
		return "the agent may not use Landlock: " + err.Error()
	case version < 1:
		return fmt.Sprintf("the kernel has an unknown version of Landlock: %d", version)
	}
	return ""
}

// parse reads the arguments of the hidden command. args are the program's path and its arguments.
func parse(words []string) (o order, args []string, err error) {
	if len(words) < 2 || json.Unmarshal([]byte(words[0]), &o) != nil {
		return order{}, nil, errors.New("only the agent itself uses this command")
	}
	return o, words[1:], nil
}

// replace replaces Self and PID in the arguments of a program. self is an open file of the agent's program.
func replace(args []string, self, pid int) []string {
	r := strings.NewReplacer(Self, "/proc/self/fd/"+strconv.Itoa(self), PID, strconv.Itoa(pid))
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = r.Replace(arg)
	}
	return out
}

// rules say what a program can open. path is its own path.
func rules(a Access, path string, environ []string) []landlock.Rule {
	out := []landlock.Rule{landlock.RWFiles("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/dev/tty").IgnoreIfMissing()}
	read := append(system(), program, path)
	if a.Network {
		read = append(read, network(environ)...)
	}
	for _, name := range append(read, a.Read...) {
		rule := landlock.ROFiles(name)
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			rule = landlock.RODirs(name)
		}
		out = append(out, rule.IgnoreIfMissing())
	}
	if len(a.Write) > 0 {
		out = append(out, landlock.RWDirs(a.Write...).IgnoreIfMissing())
	}
	if len(a.Link) > 0 {
		out = append(out, landlock.RWDirs(a.Link...).WithRefer().IgnoreIfMissing())
	}
	return out
}

// system are the programs and libraries of the system. Administrators keep settings in other directories of /usr/local.
func system() []string {
	out := []string{"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/proc/sys/crypto/fips_enabled", "/nix/store", "/gnu/store"}
	for _, prefix := range []string{"/", "/usr/", "/usr/local/"} {
		for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
			out = append(out, prefix+name)
		}
	}
	return append(out, "/usr/libexec", "/usr/share", "/usr/local/share")
}

// network are the files that Access.Network adds. systemd and resolvconf replace the resolver's settings in directories of their
// own, which contain nothing else. If another program replaces them, a program that runs already cannot read the new ones.
func network(environ []string) []string {
	out := []string{
		"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
		"/etc/resolv.conf", "/run/systemd/resolve", "/run/resolvconf",
		"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/cacert.pem",
		"/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates", "/var/lib/ca-certificates", "/etc/crypto-policies",
	}
	for _, variable := range environ {
		switch name, value, _ := strings.Cut(variable, "="); name {
		case "SSL_CERT_FILE", "SSL_CERT_DIR":
			out = append(out, strings.FieldsFunc(value, func(r rune) bool { return r == ':' })...)
		}
	}
	return out
}
