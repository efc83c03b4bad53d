package program

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/store/etcd"
)

// maxAdvertise limits the length of --advertise.
const maxAdvertise = 300

// cluster is what a server knows of the others.
type cluster struct {
	servers   func(context.Context) ([]*carav1.Server, error)
	directory directory.Directory
	acquire   acquire
	figures   []prometheus.Collector
}

func (c *ServerConfig) checkAdvertise() error {
	if c.Advertise == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Advertise)
	n, numeric := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	if err != nil || numeric != nil || n == 0 || host == "" || ip != nil && ip.IsUnspecified() || len(c.Advertise) > maxAdvertise {
		return fmt.Errorf("--advertise %.320q: want the HOST:PORT at which agents and other servers reach this one, such as 10.0.0.11:8080", c.Advertise)
	}
	return nil
}

// address returns where others reach this server; empty if that is not known.
func (c *ServerConfig) address() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return ""
	}
	return c.Listen
}

// names returns the names for the certificate: also that of --advertise, which agents do not need, but people use the same address.
func (c *ServerConfig) names() []string {
	if host, _, err := net.SplitHostPort(c.Advertise); err == nil {
		return append(slices.Clone(c.Names), host)
	}
	return c.Names
}

// describe returns what this start of the server says to the others about itself. Anybody who can connect to them may read it.
func (c *ServerConfig) describe() *carav1.Server {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return &carav1.Server{
		Id: uuid.NewString(), Address: c.address(), Host: host, Version: c.Version, StartedAt: timestamppb.Now(),
	}
}

// singleServer returns the cluster of a server that has no others beside it.
func (c *ServerConfig) singleServer() cluster {
	self := c.describe()
	self.Loops = slices.Sorted(maps.Keys(c.loops(nil)))
	return cluster{acquire: withoutLease, servers: func(context.Context) ([]*carav1.Server, error) { return []*carav1.Server{proto.CloneOf(self)}, nil }}
}

// encode returns the form of a description in etcd.
func encode(s *carav1.Server) []byte {
	data, err := protojson.Marshal(s)
	if err != nil { // a host name that is not UTF-8
		data, _ = protojson.Marshal(&carav1.Server{Id: s.GetId(), Address: s.GetAddress(), StartedAt: s.GetStartedAt()})
	}
	return data
}

// decode returns a description. Those of older versions are only a text, which becomes the host.
func decode(data []byte) *carav1.Server {
	s := &carav1.Server{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, s); err != nil {
		return &carav1.Server{Host: text.Printable(string(data), maxAdvertise)}
	}
	return s
}

// runningServers returns the servers that are announced in etcd, with the loops that they run.
func runningServers(ctx context.Context, db *etcd.Store) ([]*carav1.Server, error) {
	found, err := db.Announced(ctx)
	if err != nil {
		return nil, err
	}
	holders, err := db.Holders(ctx)
	if err != nil {
		return nil, err
	}
	var all []*carav1.Server
	for _, data := range found {
		one := decode(data)
		for name, server := range holders {
			if server == one.GetId() {
				one.Loops = append(one.Loops, name)
			}
		}
		slices.Sort(one.Loops)
		all = append(all, one)
	}
	return all, nil
}
