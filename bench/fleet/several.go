package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// etcdMembers is how many members of etcd several servers share.
const etcdMembers = 3

// startEtcd starts the members of etcd that several servers share, and returns the flags of the servers for it.
func (f *fleet) startEtcd() ([]string, error) {
	program, err := exec.LookPath("etcd")
	if err != nil {
		return nil, fmt.Errorf("several servers need etcd (Debian's package etcd-server): %w", err)
	}
	var clients, peers, all []string
	for i := range etcdMembers {
		client, err := testcluster.FreeAddress()
		if err != nil {
			return nil, err
		}
		peer, err := testcluster.FreeAddress()
		if err != nil {
			return nil, err
		}
		clients, peers = append(clients, "http://"+client), append(peers, "http://"+peer)
		all = append(all, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range etcdMembers {
		name := fmt.Sprintf("m%d", i)
		p, err := testcluster.Start(filepath.Join(f.Dir, name+".log"), os.Environ(), program, "--name", name, "--data-dir", filepath.Join(f.Dir, name),
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i], "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new")
		if err != nil {
			return nil, err
		}
		f.etcd = append(f.etcd, p)
	}
	return []string{"--store", "etcd", "--etcd-endpoints", strings.Join(clients, ","), "--cluster-key-file", filepath.Join(f.Dir, "cluster.key")}, nil
}

// startServers starts the server, or several on one etcd.
func (f *fleet) startServers(ctx context.Context) error {
	if f.servers > 1 {
		flags, err := f.startEtcd()
		if err != nil {
			return err
		}
		f.ServerFlags = append(f.ServerFlags, flags...)
	}
	if err := f.StartServer(ctx); err != nil {
		return err
	}
	for i := range f.servers - 1 {
		dir := filepath.Join(f.Dir, fmt.Sprintf("beside-%d", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		one, err := testcluster.New(testcluster.Config{Dir: dir, Bin: f.Bin, ServerFlags: f.ServerFlags})
		if err != nil {
			return err
		}
		f.beside = append(f.beside, one)
		if err := one.StartBeside(ctx); err != nil {
			return err
		}
	}
	return nil
}

// all returns the servers. Clients call the first one.
func (f *fleet) all() []*testcluster.Cluster {
	return append([]*testcluster.Cluster{f.Cluster}, f.beside...)
}

// closeServers ends all servers, and etcd.
func (f *fleet) closeServers(ctx context.Context) error {
	var errs []error
	for _, one := range slices.Backward(f.all()) {
		errs = append(errs, one.Close(ctx))
	}
	for _, p := range f.etcd {
		errs = append(errs, p.Stop(ctx))
	}
	return errors.Join(errs...)
}

// addresses returns the addresses of all servers for the agent of a node. The agents are spread over the servers.
func (f *fleet) addresses(node int) string {
	var urls []string
	for _, one := range f.all() {
		urls = append(urls, one.URL())
	}
	first := node % len(urls)
	return strings.Join(slices.Concat(urls[first:], urls[:first]), ",")
}

// usage returns what all servers have used, without etcd.
func (f *fleet) usage() (sum testcluster.Usage, err error) {
	for _, one := range f.all() {
		used, err := testcluster.UsageOf(one.Server.Pid())
		if err != nil {
			return sum, err
		}
		sum.Processor += used.Processor
		sum.Resident += used.Resident
		sum.Peak += used.Peak
	}
	return sum, nil
}
