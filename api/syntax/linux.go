package syntax

import (
	"slices"
	"strconv"
	"strings"
)

// AllowedCapabilities returns the capabilities that capAdd may name on every node: Docker's defaults, and others that
// databases need and that have no effect outside the container. A node's operator can allow more. The result is a copy.
func AllowedCapabilities() []string {
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "MKNOD", "NET_BIND_SERVICE",
		"NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_NICE",
	}
}

// Capabilities returns all capabilities of Linux, and ALL.
func Capabilities() []string {
	return append(AllowedCapabilities(),
		"ALL", "AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH",
		"IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "NET_BROADCAST", "PERFMON",
		"SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE",
		"SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
	)
}

// CanonCapability spells a capability as Docker's API does: upper case, without CAP_.
func CanonCapability(c string) string { return strings.TrimPrefix(strings.ToUpper(c), "CAP_") }

func signals() []string {
	return []string{
		"ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE", "PROF", "PWR", "QUIT",
		"SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM",
		"WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
	}
}

// CanonSignal spells a signal as `SIGTERM`. Numbers and unknown names do not change.
func CanonSignal(s string) string {
	if !IsSignal(s) {
		return s
	}
	if _, err := strconv.Atoi(s); err == nil {
		return s
	}
	return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
}

// IsSignal reports whether s is the name or the number of a signal.
func IsSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		return realTime(n)
	}
	if n, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		return realTime(n)
	}
	return slices.Contains(signals(), name)
}

// realTime reports whether n is an offset within the real-time signals 34 to 64.
func realTime(n string) bool {
	v, err := strconv.Atoi(n)
	return err == nil && v >= 0 && v <= 30 && !strings.HasPrefix(n, "+")
}

// Ulimits returns the names of the limits that a service can set.
func Ulimits() []string {
	return []string{
		"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
		"rttime", "sigpending", "stack",
	}
}

// IsOctal reports whether s consists of octal digits.
func IsOctal(s string) bool { return s != "" && strings.Trim(s, "01234567") == "" }
