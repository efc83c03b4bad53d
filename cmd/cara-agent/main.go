// Command cara-agent makes the Docker engine of a node match the assignments of the node. It is the last stage of a push.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cmd/internal/program"
)

var version = "dev" // set by the linker

func main() { program.Main(newCommand()) }

func newCommand() *cobra.Command {
	cfg := program.AgentConfig{Version: version}
	var log program.LogFlags
	var pool string
	var servers []string
	cmd := &cobra.Command{
		Use: "cara-agent", Short: "Run Cara's agent on a node", Args: cobra.NoArgs, Version: version,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Logger, err = log.Logger(os.Stderr); err != nil {
				return err
			}
			cfg.Server = strings.Join(servers, ",")
			if cfg.NetworkPool, err = netip.ParsePrefix(pool); err != nil {
				return fmt.Errorf("--network-pool %q: want a range such as 10.213.0.0/16: %w", pool, err)
			}
			if cfg.NodeName == "" {
				if cfg.NodeName, err = os.Hostname(); err != nil {
					return fmt.Errorf("find this machine's name (or give --node-name): %w", err)
				}
			}
			return cfg.Run(cmd.Context())
		},
	}
	cmd.AddCommand(program.Hidden()...)
	log.Add(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&servers, "server", nil, "address of cara-server, such as https://cara.example.com:8080; with several servers, repeat it for each one: the agent is connected to one and learns the addresses of the others from it")
	f.StringVar(&cfg.JoinTokenFile, "join-token-file", "", "file with the join token")
	f.StringVar(&cfg.NodeName, "node-name", "", "name of this node (default: the host name)")
	f.StringVar(&cfg.DataDir, "data-dir", "", "directory for the node's certificate and assignments")
	f.StringToStringVar(&cfg.Labels, "label", nil, "labels that a new node requests: key=value; the join token must allow them")
	f.StringVar(&cfg.DockerHost, "docker-host", "unix:///var/run/docker.sock", "address of the Docker engine")
	f.StringVar(&cfg.IngressListen, "ingress-listen", ":8081", "address that serves HTTP by host name; empty: no ingress")
	f.BoolVar(&cfg.IngressAll, "ingress-all", false, "keep the routes and certificates of all hosts of the cluster, for a node that many clients connect to; without it, the agent asks the server for a host at its first request")
	f.StringVar(&cfg.IngressAddress, "ingress-address", "", "address of the ingress for other agents, host:port (default: from --ingress-listen and the route to the server)")
	f.StringVar(&cfg.PublicHTTP, "public-http", "", "address that serves public hosts over HTTP, such as :80; empty: none")
	f.StringVar(&cfg.PublicHTTPS, "public-https", "", "address that serves public hosts over HTTPS, such as :443; empty: none")
	f.StringSliceVar(&cfg.PublicAddresses, "public-address", nil, "addresses and names at which the internet reaches --public-http and --public-https, such as 203.0.113.5; certificates are ordered only for hosts that lead to them; repeat it for each one")
	f.StringSliceVar(&cfg.ProxyProtocolFrom, "proxy-protocol-from", nil, "networks of load balancers, such as 10.0.0.5/32, that begin each connection to the ingress or to a port with a PROXY header; others cannot send one; repeat it for each network")
	f.StringVar(&cfg.AccessLog, "ingress-access-log", "off", "file for the access log of the ingress, with a line of JSON for each request; -: standard output")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", "", "loopback address that serves metrics for Prometheus, such as 127.0.0.1:9464; empty: no metrics")
	f.StringSliceVar(&cfg.Ports, "ports", nil, "ports that projects may use on this node, such as 5432,25565-25570,19132/udp; entries without /udp are for TCP")
	f.StringVar(&cfg.PortsInternal, "ports-internal", "", "IP address on which ports with the scope Internal are opened; empty: none")
	f.StringVar(&cfg.PortsPublic, "ports-public", "", "IP address on which ports with the scope Public are opened; empty: none")
	f.DurationVar(&cfg.PortsIdle, "ports-idle", time.Hour, "time without data after which a connection to a port is closed")
	f.DurationVar(&cfg.PortsUDPIdle, "ports-udp-idle", 2*time.Minute, "time without a datagram after which a UDP session ends")
	f.StringSliceVar(&cfg.CredentialHelpers, "credential-helper", nil, "REGISTRY=HELPER: a program docker-credential-HELPER, or an absolute path, that prints the login for a registry at each pull")
	f.StringSliceVar(&cfg.AllowRegistries, "allow-registry", nil, "registries that images may be pulled from, such as docker.io or *.example.com (default: all registries)")
	f.StringVar(&pool, "network-pool", "10.213.0.0/16", "address range for project networks; each project gets a /27, or a larger network for more than 14 services")
	f.Int32Var(&cfg.Hardening.PIDsLimit, "pids-limit", 4096, "maximum number of processes and threads in a container without a limit in its manifest; -1: no limit")
	f.BoolVar(&cfg.Hardening.NoNewPrivileges, "no-new-privileges", false, "set noNewPrivileges for every new container")
	f.StringSliceVar(&cfg.Hardening.AllowCaps, "allow-cap", nil, "Linux capabilities, such as NET_ADMIN, that projects may add on this node, in addition to those that every node allows")
	f.StringSliceVar(&cfg.BackupDirs, "backup-dir", nil, "directories below which projects may have repositories for their backups, such as /srv/backups; repeat it for each one")
	f.StringSliceVar(&cfg.HostVolumes, "host-volume", nil, "paths that projects may mount by name: NAME=PATH[,ro][,projects=PATTERN[;PATTERN]], such as media=/srv/media,ro; repeat it for each one")
	f.DurationVar(&cfg.RestartDelay, "restart-delay", time.Second, "delay before the first restart of a container that has exited; it grows with each restart")
	f.Float64Var(&cfg.Limits.DiskPressure, "disk-pressure", 90, "used percentage of the engine's disk above which the node gets no new projects")
	f.Float64Var(&cfg.Limits.MemoryPressure, "memory-pressure", 5, "available percentage of the memory below which the node gets no new projects")
	f.Float64Var(&cfg.Limits.CollectAbove, "image-gc-high", 85, "used percentage of the engine's disk above which Cara removes unused images that it pulled")
	f.Float64Var(&cfg.Limits.CollectTo, "image-gc-low", 80, "used percentage of the engine's disk at which it stops removing images")
	f.DurationVar(&cfg.CollectEvery, "image-gc-interval", time.Minute, "time between two checks whether to remove images")
	return cmd
}
