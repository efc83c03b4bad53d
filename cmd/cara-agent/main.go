// Command cara-agent makes the Docker engine of a node match the assignments of the node. It is the last stage of a push.
package main

import (
	"fmt"
	"net/netip"
	"os"
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
	cmd := &cobra.Command{
		Use: "cara-agent", Short: "Run Cara's agent on a node", Args: cobra.NoArgs, Version: version,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Logger, err = log.Logger(os.Stderr); err != nil {
				return err
			}
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
	log.Add(cmd)
	f := cmd.Flags()
	f.StringVar(&cfg.Server, "server", "", "address of cara-server")
	f.StringVar(&cfg.JoinTokenFile, "join-token-file", "", "file that holds the join token")
	f.StringVar(&cfg.NodeName, "node-name", "", "name of this node (default: the host name)")
	f.StringVar(&cfg.DataDir, "data-dir", "", "directory for this node's certificate and assignments")
	f.StringToStringVar(&cfg.Labels, "label", nil, "labels that a new node asks for: key=value; its join token must allow them")
	f.StringVar(&cfg.DockerHost, "docker-host", "unix:///var/run/docker.sock", "Docker engine")
	f.StringVar(&cfg.IngressListen, "ingress-listen", ":8081", "address that serves HTTP by host name; empty for none")
	f.StringVar(&cfg.IngressAddress, "ingress-address", "", "where other agents reach the ingress, host:port, where that differs")
	f.StringVar(&cfg.AccessLog, "ingress-access-log", "off", "file that gets a line of JSON for each request to the ingress; - for standard output")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", "", "address of loopback that serves figures for Prometheus, such as 127.0.0.1:9464; empty for none")
	f.StringSliceVar(&cfg.AllowRegistries, "allow-registry", nil, "registries that images may be pulled from, such as docker.io or *.example.com; all where it is not given")
	f.StringVar(&pool, "network-pool", "10.213.0.0/16", "range that project networks are cut from, a /27 each, or larger for more than 14 services")
	f.Int32Var(&cfg.Hardening.PIDsLimit, "pids-limit", 4096, "processes and threads that a container may have where its manifest gives no limit; -1 for no limit")
	f.BoolVar(&cfg.Hardening.NoNewPrivileges, "no-new-privileges", false, "set noNewPrivileges for every container that is made from now on")
	f.StringSliceVar(&cfg.Hardening.AllowCaps, "allow-cap", nil, "Linux capabilities, such as NET_ADMIN, that projects may add on this node beside those that they may add on every node")
	f.StringSliceVar(&cfg.HostVolumes, "host-volume", nil, "paths that projects may mount by name: NAME=PATH[,ro][,projects=PATTERN[;PATTERN]], such as media=/srv/media,ro; repeat it for each one")
	f.DurationVar(&cfg.RestartDelay, "restart-delay", time.Second, "first delay of the backoff of containers that exit")
	f.Float64Var(&cfg.Limits.DiskPressure, "disk-pressure", 90, "percent of the engine's disk used above which the node gets no new projects")
	f.Float64Var(&cfg.Limits.MemoryPressure, "memory-pressure", 5, "percent of the memory available below which the node gets no new projects")
	f.Float64Var(&cfg.Limits.CollectAbove, "image-gc-high", 85, "percent of the engine's disk used above which unused images are removed that Cara pulled")
	f.Float64Var(&cfg.Limits.CollectTo, "image-gc-low", 80, "percent of the engine's disk used down to which they are removed")
	f.DurationVar(&cfg.CollectEvery, "image-gc-interval", time.Minute, "how often that is looked at")
	return cmd
}
