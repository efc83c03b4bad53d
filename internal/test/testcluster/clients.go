package testcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// maxAnswer limits one answer. A list of thousands of projects fits.
const maxAnswer = 64 << 20

// Token returns the admin token.
func (c *Cluster) Token() (string, error) {
	data, err := os.ReadFile(filepath.Join(c.DataDir(), "admin.token"))
	if err != nil {
		return "", fmt.Errorf("read admin token: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Conn returns a gRPC connection as the admin. It is created once.
func (c *Cluster) Conn() (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	token, err := c.Token()
	if err != nil {
		return nil, err
	}
	c.conn, err = Dial(c.Address(), token)
	return c.conn, err
}

// Dial returns a gRPC connection to a server, with a token. It reconnects immediately to a restarted server.
func Dial(address, token string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(token)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}))
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false } // loopback

// Projects returns a client for projects, as the admin.
func (c *Cluster) Projects() (carav1.ProjectServiceClient, error) {
	conn, err := c.Conn()
	return carav1.NewProjectServiceClient(conn), err
}

// Nodes returns a client for nodes, as the admin.
func (c *Cluster) Nodes() (carav1.NodeServiceClient, error) {
	conn, err := c.Conn()
	return carav1.NewNodeServiceClient(conn), err
}

// Sources returns a client for sources, as the admin.
func (c *Cluster) Sources() (carav1.SourceServiceClient, error) {
	conn, err := c.Conn()
	return carav1.NewSourceServiceClient(conn), err
}

// Events returns a client for events, as the admin.
func (c *Cluster) Events() (carav1.EventServiceClient, error) {
	conn, err := c.Conn()
	return carav1.NewEventServiceClient(conn), err
}

// Labels returns the labels of everything that the cluster creates in an engine.
func (c *Cluster) Labels(ctx context.Context) (map[string]string, error) {
	conn, err := c.Conn()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		info, err := carav1.NewInfoServiceClient(conn).GetInfo(ctx, &emptypb.Empty{})
		if err != nil {
			return nil, fmt.Errorf("ask for the cluster's id: %w", err)
		}
		c.id = info.GetClusterId()
	}
	return map[string]string{api.LabelCluster: c.id}, nil
}

// Held returns what an engine has of this cluster, or of one project if it is named.
func (c *Cluster) Held(ctx context.Context, host, project string) (testdocker.Held, error) {
	labels, err := c.Labels(ctx)
	if err != nil {
		return testdocker.Held{}, err
	}
	if project != "" {
		labels[api.LabelProject] = project
	}
	return testdocker.List(ctx, host, labels)
}

// Sweep removes everything of this cluster from an engine, running or not, after a failed run.
func (c *Cluster) Sweep(ctx context.Context, host string) error {
	labels, err := c.Labels(ctx)
	if err != nil {
		return err
	}
	return testdocker.Remove(ctx, host, labels)
}
