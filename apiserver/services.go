package apiserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/relay"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Each service is composed of parts from several packages. Each method of the contract is in exactly one part. With the
// Unsafe interface a missing method is a compile error.
type (
	projectService struct {
		objects.Projects
		*relay.Relay
		carav1.UnsafeProjectServiceServer
	}
	nodeService struct {
		objects.Nodes
		*dispatch.Dispatcher
		*relay.Relay
		carav1.UnsafeNodeServiceServer
	}
	certificateService struct {
		objects.Certificates
		dispatch.Challenges
		carav1.UnsafeCertificateServiceServer
	}
	sessionService struct {
		objects.Sessions
		logins
		carav1.UnsafeSessionServiceServer
	}
	infoService struct {
		*Server
		carav1.UnsafeInfoServiceServer
	}
)

// logins are the calls of the session service that need no identity.
type logins interface {
	StartDeviceLogin(ctx context.Context, _ *emptypb.Empty) (*carav1.StartDeviceLoginResponse, error)
	FinishLogin(ctx context.Context, req *carav1.FinishLoginRequest) (*carav1.FinishLoginResponse, error)
}

// register registers every service with a gRPC server or an in-process channel.
func (s *Server) register(r grpc.ServiceRegistrar) {
	carav1.RegisterProjectServiceServer(r, projectService{Projects: objects.Projects{Service: s.objects}, Relay: s.streams})
	carav1.RegisterApplyServiceServer(r, objects.Applier{Service: s.objects})
	carav1.RegisterNodeServiceServer(r, nodeService{Nodes: objects.Nodes{Service: s.objects}, Dispatcher: s.agents, Relay: s.streams})
	carav1.RegisterSecretServiceServer(r, objects.Secrets{Service: s.objects})
	carav1.RegisterTokenServiceServer(r, objects.Tokens{Service: s.objects})
	carav1.RegisterSessionServiceServer(r, sessionService{Sessions: s.sessions, logins: sessions{s}})
	carav1.RegisterSourceServiceServer(r, objects.Sources{Service: s.objects})
	carav1.RegisterVolumeServiceServer(r, objects.Volumes{Service: s.objects})
	carav1.RegisterEventServiceServer(r, objects.Events{Service: s.objects})
	carav1.RegisterWatchServiceServer(r, objects.Watches{Service: s.objects})
	carav1.RegisterCertificateServiceServer(r, certificateService{Certificates: objects.Certificates{Service: s.objects}, Challenges: dispatch.Challenges{Dispatcher: s.agents}})
	carav1.RegisterFileServiceServer(r, objects.Files{Service: s.objects})
	carav1.RegisterInfoServiceServer(r, infoService{Server: s})
	carav1.RegisterPeerServiceServer(r, peers.Service{Peers: s.peers})
}
