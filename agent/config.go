package agent

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Config says whose agent this is and what it stands on.
type Config struct {
	// Conn leads to the server, as this node.
	Conn grpc.ClientConnInterface
	// Engine to keep in order.
	Engine engine.Engine
	// NodeName and ClusterID go on the labels of everything that is made.
	NodeName, ClusterID string
	// DataDir keeps the last assignments.
	DataDir string
	// Version of this program, and where its ingress listens (`host:port`), for the node's info.
	Version, IngressAddress string
	// OnRoutes gets every change of the ingress table, in order. It must not block. Nil: nobody wants them.
	OnRoutes func(*carav1.Routes)
	Logger   *slog.Logger
	// Queues count what the agent's queues do; nil: nobody counts.
	Queues *loop.Metrics

	// Workers is how many projects are worked on side by side; 64 where 0.
	Workers int
	// EngineCalls is how many calls that change something run side by side; 8 where 0.
	EngineCalls int
	// Stops is how many containers are told to stop side by side, those aside that take their time; 12 where 0.
	Stops int
	// Pulls is how many images are pulled side by side; 3 where 0.
	Pulls int
	// Relist is how often the engine is listed; 15 s where 0.
	Relist time.Duration
	// Ping is how often the engine is asked for a sign of life; 5 s where 0.
	Ping time.Duration
	// OrphanGrace is how long what nobody owns is left alone while the server is connected; 30 s where 0.
	OrphanGrace time.Duration
	// ServerGrace is how long the assignments on disk wait for the server after a start, unless nobody listens there; 10 s
	// where 0.
	ServerGrace time.Duration
	// MaxBackoff between tries of a failed piece of work; 10 s where 0. The server is tried every second at least.
	MaxBackoff time.Duration
	// ProbeEvery is how often a service that has not been healthy yet is probed, at most; 1 s where 0.
	ProbeEvery time.Duration
	// CollectEvery is how often the disk is looked at for images to collect; 1 min where 0.
	CollectEvery time.Duration
	// Hardening is what every container of this node gets.
	Hardening step.Hardening
	// Restart says how containers that exit are restarted.
	Restart step.RestartLimits
	// Limits say when the node is short of disk or memory.
	Limits Limits
}

// node is what the node of this agent makes of every assignment.
func (c *Config) node() step.Node {
	return step.Node{Cluster: c.ClusterID, Name: c.NodeName, Hardening: c.Hardening, Restart: c.Restart}
}

// Validate fills in defaults and says what is missing.
func (c *Config) Validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"Conn": c.Conn == nil, "Engine": c.Engine == nil, "Logger": c.Logger == nil,
		"NodeName": c.NodeName == "", "ClusterID": c.ClusterID == "", "DataDir": c.DataDir == "",
	} {
		if missing {
			errs = append(errs, fmt.Errorf("agent: %s is not set", name))
		}
	}
	c.Workers = cmp.Or(c.Workers, 64)
	c.EngineCalls = cmp.Or(c.EngineCalls, 8)
	c.Stops = cmp.Or(c.Stops, 12)
	c.Pulls = cmp.Or(c.Pulls, 3)
	c.Relist = cmp.Or(c.Relist, 15*time.Second)
	c.Ping = cmp.Or(c.Ping, 5*time.Second)
	c.OrphanGrace = cmp.Or(c.OrphanGrace, 30*time.Second)
	c.ServerGrace = cmp.Or(c.ServerGrace, 10*time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 10*time.Second)
	c.ProbeEvery = cmp.Or(c.ProbeEvery, time.Second)
	c.CollectEvery = cmp.Or(c.CollectEvery, time.Minute)
	c.Hardening = c.Hardening.WithDefaults()
	c.Restart = c.Restart.WithDefaults()
	errs = append(errs, c.Limits.validate())
	return errors.Join(errs...)
}
