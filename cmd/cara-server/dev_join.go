package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/cmd/internal/program"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

// Names of the only node and of the token with which its agent joins.
const (
	devNode  = "dev"
	devToken = "dev-join"
)

// joinToken creates a token for the agent of this start. The token of the first start may have expired if the directory is
// watched again days later.
func joinToken(ctx context.Context, server *program.ServerConfig, url string) (string, error) {
	conn, err := access.Dial(access.Context{Server: url, TokenFile: filepath.Join(server.DataDir, identity.AdminTokenFile)})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	tokens := carav1.NewTokenServiceClient(conn)
	_, err = tokens.DeleteToken(ctx, &carav1.DeleteRequest{Name: devToken})
	if err == nil || api.IsNotFound(err) {
		var made *carav1.CreateTokenResponse
		made, err = tokens.CreateToken(ctx, &carav1.CreateTokenRequest{Token: &carav1.Token{
			Metadata: &carav1.ObjectMeta{Name: devToken}, Role: api.RoleJoin, UsesLeft: 2, NodeNames: []string{devNode},
		}})
		if err == nil {
			return made.GetSecret(), nil
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return "", fmt.Errorf("make a join token for the agent: %w", err)
}
