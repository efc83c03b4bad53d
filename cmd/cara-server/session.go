package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/cmd/internal/devlog"
	"github.com/caravanserai/cara/cmd/internal/program"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

// devSource is the name of the source that watches the directory.
const devSource = "dev"

// session is the user interface of `cara-server dev`, from the banner to the question at the end.
type session struct {
	server *program.ServerConfig
	agent  *program.AgentConfig
	dir    string
	devFlags
}

// run shows the progress until asked ends, and then asks what to do with the containers. The server and the agent run until
// running ends.
func (s *session) run(asked, running context.Context) error {
	conn, err := access.Dial(access.Context{Server: s.agent.Server, TokenFile: filepath.Join(s.server.DataDir, identity.AdminTokenFile)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.down {
		return s.takeDown(asked, conn)
	}
	if err := s.watchDirectory(asked, conn); err != nil {
		return err
	}
	followed := make(chan error, 1)
	following, stop := context.WithCancel(running)
	defer stop()
	go func() { followed <- s.follow(following, conn) }()
	select {
	case <-asked.Done():
	case err := <-followed:
		return err
	case <-running.Done():
		return nil
	}
	stop()
	<-followed //nolint:errcheck // it ends because it was stopped
	return s.leave(running, conn)
}

// watchDirectory creates a source for the directory, or changes the one of an earlier run.
func (s *session) watchDirectory(ctx context.Context, conn *grpc.ClientConn) error {
	c := carav1.NewSourceServiceClient(conn)
	known, err := c.GetSource(ctx, &carav1.GetRequest{Name: devSource})
	if err == nil || api.IsNotFound(err) {
		_, err = c.PutSource(ctx, &carav1.PutSourceRequest{Source: &carav1.Source{
			ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: devSource}, Spec: s.sourceSpec(known.GetSpec()),
		}})
	}
	if err != nil && (ctx.Err() == nil || status.Code(err) != codes.Canceled) {
		return fmt.Errorf("watch %s: %w", s.dir, err)
	}
	return ctx.Err()
}

// sourceSpec returns the spec of the source, with what the user has set in it since an earlier run. The user owns the machine and may use
// every Secret of the cluster, so the source may too.
func (s *session) sourceSpec(known *carav1.SourceSpec) *carav1.SourceSpec {
	spec := &carav1.SourceSpec{AllowEmpty: true, Allow: &carav1.SourceAllow{Secrets: []string{syntax.Everything}}}
	if known != nil {
		spec = proto.CloneOf(known)
	}
	spec.Dir, spec.Format = &carav1.DirSource{Path: s.dir}, s.format
	switch {
	case s.format != api.FormatCompose:
		spec.Compose = nil
	case s.lossy:
		spec.Compose = &carav1.ComposeOptions{Lossy: true, Profiles: spec.GetCompose().GetProfiles()}
	}
	return spec
}

// follow prints the banner when the node is ready, and then a line for each save and its result.
func (s *session) follow(ctx context.Context, conn *grpc.ClientConn) error {
	login, err := carav1.NewTokenServiceClient(conn).CreateLogin(ctx, &emptypb.Empty{})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("make a link to the page: %w", err)
	}
	greeted := false
	return s.watch(ctx, conn, func(m *carav1.WatchResponse, lines []string) bool {
		for _, c := range m.GetChanges() {
			node, ok := api.Unwrap(c.GetObject()).(*carav1.Node)
			if ok && node.GetStatus().GetState() == api.NodeReady && !greeted {
				greeted = true
				s.greet(login.GetPath())
			}
		}
		say(lines)
		return true
	})
}

func say(lines []string) {
	for _, line := range lines {
		fmt.Println(line)
	}
}

// watch calls take for each message, with the lines about it, until take returns false or ctx ends.
func (s *session) watch(ctx context.Context, conn *grpc.ClientConn, take func(m *carav1.WatchResponse, lines []string) bool) error {
	n := &devlog.Printer{Ingress: s.agent.IngressListen}
	stream, err := carav1.NewWatchServiceClient(conn).Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindNode, api.KindProject, api.KindSource}})
	for err == nil {
		var m *carav1.WatchResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		if !take(m, n.Take(m, time.Now())) {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch the cluster: %w", err)
}

// leave prints what keeps running, and on a terminal offers to remove it.
func (s *session) leave(ctx context.Context, conn *grpc.ClientConn) error {
	list, err := carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{})
	if err != nil || len(list.GetItems()) == 0 {
		return err
	}
	fmt.Printf("\nWhat runs keeps running (projects: %d). To remove it: cara-server dev --down %s\n", len(list.GetItems()), s.dir)
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil
	}
	fmt.Print("Remove them now? [y/N] ")
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return nil
	}
	return s.takeDown(ctx, conn)
}

// takeDown deletes the source and each project, and waits until all are gone.
func (s *session) takeDown(ctx context.Context, conn *grpc.ClientConn) error {
	sources, projects := carav1.NewSourceServiceClient(conn), carav1.NewProjectServiceClient(conn)
	if _, err := sources.DeleteSource(ctx, &carav1.DeleteRequest{Name: devSource}); err != nil && !api.IsNotFound(err) {
		return fmt.Errorf("stop watching %s: %w", s.dir, err)
	}
	open, asked, synced := map[string]bool{}, map[string]bool{}, false
	var failed error
	err := s.watch(ctx, conn, func(m *carav1.WatchResponse, lines []string) bool {
		if synced { // what still ran before is no news
			say(lines)
		}
		for _, c := range m.GetChanges() {
			if p, ok := api.Unwrap(c.GetObject()).(*carav1.Project); ok {
				open[p.GetMetadata().GetName()] = !c.GetDeleted()
			}
		}
		synced = synced || m.GetSynced()
		left := 0
		for name, there := range open {
			if there {
				left++
			}
			if !there || asked[name] {
				continue
			}
			asked[name] = true
			_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{
				Name: name, Override: &carav1.OverrideTerms{Reason: "cara-server dev --down"},
			})
			if err != nil && !api.IsNotFound(err) {
				failed = fmt.Errorf("delete project %s: %w", name, err)
				return false
			}
		}
		return left > 0 || !synced
	})
	if err = errors.Join(failed, err, ctx.Err()); err == nil {
		fmt.Println("Nothing of this directory runs any more.")
	}
	return err
}

// greet prints the banner. The link to the page logs in once.
func (s *session) greet(link string) {
	caractrl := "caractrl"
	if name := s.server.ContextToName; name != "" {
		caractrl += " --context " + name
	}
	what := "Put a project's YAML into the directory, and it runs; remove the file, and it is gone."
	if s.format == api.FormatCompose {
		what = "Each directory with a compose.yaml is a project, and it runs; remove the file, and it is gone."
	}
	fmt.Printf(`
Cara runs. %[7]s

  directory   %[1]s
  address     %[2]s
  page        %[6]s (logs in once, within 10 minutes)
  ingress     http://%[3]s (by host name)
  data        %[4]s

What to type next, in another terminal:

  %[5]s get projects -w
  %[5]s describe source dev
  %[5]s get events

Ctrl-C ends the server and the agent; containers keep running until cara-server dev --down.

`, s.dir, s.agent.Server, s.agent.IngressListen, s.server.DataDir, caractrl, s.agent.Server+link, what)
}
