package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// Servers are the addresses that clients use, with the admin's token. A client goes on to the next address after a failure.
type Servers struct {
	Addresses []string
	Token     string
}

// line is a client's connections, one for each server, of which it uses one at a time.
type line struct {
	conns []*grpc.ClientConn
	at    int
}

func (s Servers) dial(first int) (*line, error) {
	l := &line{at: first % len(s.Addresses)}
	for _, address := range s.Addresses {
		conn, err := testcluster.Dial(address, s.Token)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", address, err), l.close())
		}
		l.conns = append(l.conns, conn)
	}
	return l, nil
}

func (l *line) conn() *grpc.ClientConn { return l.conns[l.at] }

func (l *line) next() { l.at = (l.at + 1) % len(l.conns) }

func (l *line) close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// List returns all projects, from the first server that answers.
func (s Servers) List(ctx context.Context) ([]*carav1.Project, error) {
	l, err := s.dial(0)
	if err != nil {
		return nil, err
	}
	var answer *carav1.ListProjectsResponse
	for range l.conns {
		bounded, cancel := context.WithTimeout(ctx, shortCall)
		answer, err = carav1.NewProjectServiceClient(l.conn()).ListProjects(bounded, &carav1.ListProjectsRequest{})
		cancel()
		if err == nil {
			break
		}
		l.next()
	}
	return answer.GetItems(), errors.Join(err, l.close())
}

// pause waits between two tries. It returns when ctx ends, too.
func pause(ctx context.Context, d time.Duration) {
	_ = testcluster.Pause(ctx, d)
}
