package apiserver

import (
	"google.golang.org/grpc"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The services are thin: each is the server, seen through one service's methods.
type (
	projectService struct {
		*Server
		carav1.UnimplementedProjectServiceServer
	}
	applyService struct {
		*Server
		carav1.UnimplementedApplyServiceServer
	}
	nodeService struct {
		*Server
		carav1.UnimplementedNodeServiceServer
	}
	secretService struct {
		*Server
		carav1.UnimplementedSecretServiceServer
	}
	tokenService struct {
		*Server
		carav1.UnimplementedTokenServiceServer
	}
	sourceService struct {
		*Server
		carav1.UnimplementedSourceServiceServer
	}
	eventService struct {
		*Server
		carav1.UnimplementedEventServiceServer
	}
	watchService struct {
		*Server
		carav1.UnimplementedWatchServiceServer
	}
	infoService struct {
		*Server
		carav1.UnimplementedInfoServiceServer
	}
)

// register puts every service on a gRPC server or an in-process channel.
func (s *Server) register(r grpc.ServiceRegistrar) {
	carav1.RegisterProjectServiceServer(r, projectService{Server: s})
	carav1.RegisterApplyServiceServer(r, applyService{Server: s})
	carav1.RegisterNodeServiceServer(r, nodeService{Server: s})
	carav1.RegisterSecretServiceServer(r, secretService{Server: s})
	carav1.RegisterTokenServiceServer(r, tokenService{Server: s})
	carav1.RegisterSourceServiceServer(r, sourceService{Server: s})
	carav1.RegisterEventServiceServer(r, eventService{Server: s})
	carav1.RegisterWatchServiceServer(r, watchService{Server: s})
	carav1.RegisterInfoServiceServer(r, infoService{Server: s})
}
