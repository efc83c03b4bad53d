// Package survivor reads the data of one member of an etcd cluster that has lost its majority for good. It runs the etcd
// program on a copy of the member's data directory, as the only member of a new cluster. It has no part in a push:
// `cara-server recover` uses it.
//
// # Invariants
//
//  1. The member's own directory is only read.
//  2. etcd itself reads its files, so entries that are only in its log count, too. Copying the database file would lose them.
//  3. Nobody else can use the etcd that runs here: it listens on loopback and wants a certificate that only this process has.
package survivor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	stopWithin = 30 * time.Second // before etcd is killed
	maxTail    = 2 << 10          // bytes of etcd's log in an error
)

// Config says which data are read.
type Config struct {
	// DataDir is the data directory of the member, which has the directory "member".
	DataDir string
	// Program is etcd, in the version of the member; a name is looked up in PATH.
	Program string
}

// Run starts etcd on a copy of the data, calls use with its address and the TLS configuration of its clients, and removes all
// of it. etcd may not be ready yet when use is called. The context of use ends when etcd ends.
func Run(ctx context.Context, cfg Config, use func(ctx context.Context, endpoint string, secure *tls.Config) error) (err error) {
	if err := check(cfg.DataDir); err != nil {
		return err
	}
	program, err := exec.LookPath(cfg.Program)
	if err != nil {
		return fmt.Errorf("the etcd program %.200q was not found: name the one of the lost cluster with --etcd-program: %w", cfg.Program, err)
	}
	dir, err := os.MkdirTemp("", "cara-recover-") // mode 0700
	if err != nil {
		return fmt.Errorf("make a directory for a copy of etcd's data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	data := filepath.Join(dir, "data")
	err = os.Mkdir(data, 0o700)
	if err == nil {
		err = os.CopyFS(filepath.Join(data, "member"), os.DirFS(filepath.Join(cfg.DataDir, "member")))
	}
	if err != nil {
		return fmt.Errorf("copy etcd's data (TMPDIR chooses another disk): %w", err)
	}
	secure, err := keyPair(dir)
	if err != nil {
		return fmt.Errorf("make a certificate for etcd: %w", err)
	}
	return serve(ctx, program, dir, secure, use)
}

// check returns an error if a directory is not that of a member, or if its etcd still runs.
func check(dir string) error {
	for _, part := range []string{"snap/db", "wal"} {
		_, err := os.Stat(filepath.Join(dir, "member", part))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s has no member/%s: give the data directory of an etcd member; if its log was elsewhere, copy that to member/wal first", dir, part)
		}
		if err != nil {
			return fmt.Errorf("read etcd's data: %w", err)
		}
	}
	db, err := os.Open(filepath.Join(dir, "member", "snap", "db"))
	if err != nil {
		return fmt.Errorf("read etcd's data: %w", err)
	}
	defer func() { _ = db.Close() }() // it was only read; this ends the lock
	if err := syscall.Flock(int(db.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("an etcd runs on %s: stop it first", dir)
	}
	return nil
}

// serve runs etcd while use works with it.
func serve(ctx context.Context, program, dir string, secure *tls.Config, use func(context.Context, string, *tls.Config) error) error {
	client, peer, err := addresses(ctx)
	if err != nil {
		return fmt.Errorf("find free ports for etcd: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return fmt.Errorf("make a log for etcd: %w", err)
	}
	defer func() { _ = log.Close() }() // it is removed
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := exec.CommandContext(running, program, arguments(dir, client, peer)...) //nolint:gosec // the operator names the program
	cmd.Env = []string{}                                                          // ETCD_ variables of a member would be taken for flags
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		stop(fmt.Errorf("etcd cannot use the copy of the data (%w); its version must be that of the lost cluster. The end of its log: %s", err, tail(log)))
	}()
	err = use(running, client, secure)
	if err != nil && running.Err() != nil && ctx.Err() == nil {
		err = context.Cause(running)
	}
	stop(nil)
	<-ended
	return err
}

// arguments returns the command line of an etcd that is the only member of a new cluster with the data in dir.
func arguments(dir, client, peer string) []string {
	cert, key := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	return []string{
		"--name", "recovered", "--data-dir", filepath.Join(dir, "data"), "--force-new-cluster",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "recovered=" + peer,
		"--client-cert-auth", "--trusted-ca-file", cert, "--cert-file", cert, "--key-file", key,
		"--peer-client-cert-auth", "--peer-trusted-ca-file", cert, "--peer-cert-file", cert, "--peer-key-file", key,
	}
}

// addresses returns URLs with two free ports of loopback.
func addresses(ctx context.Context) (client, peer string, err error) {
	var urls [2]string
	for i := range urls {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close() // at the end, so that the ports differ
		urls[i] = "https://" + l.Addr().String()
	}
	return urls[0], urls[1], nil
}

// tail returns the end of a log in one line.
func tail(log *os.File) string {
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	text, _ := io.ReadAll(io.NewSectionReader(log, max(0, info.Size()-maxTail), maxTail)) // what can be read
	return strings.Join(strings.Fields(string(text)), " ")
}
