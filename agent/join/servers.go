package join

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

const (
	serversFile = "servers.json"
	maxServers  = 16 // addresses that one agent knows
	maxAddress  = 300
	scheme      = "cara" // of the targets whose addresses are those of servers
)

// servers are the addresses of the cluster's servers: those of the command line, and those that a server has told. The agent
// is connected to the first one that answers, and gives its turn to the next when that one is of no use.
type servers struct {
	file string

	mu    sync.Mutex
	given []string // from the command line, as host:port
	told  []string
	turn  int // the place in all of the address that is tried first
	open  []*manual.Resolver
}

// newServers returns the servers of the command line and those in the data directory. A missing or damaged file is not
// an error: the addresses of the command line suffice.
func newServers(given, dir string) (*servers, error) {
	s := &servers{file: filepath.Join(dir, serversFile)}
	var err error
	if s.given, err = addresses(given); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var told []string
	if err := json.Unmarshal(text, &told); err != nil || len(text) > maxServers*maxAddress*2 {
		return s, nil //nolint:nilerr // the next server tells them again
	}
	s.told = usable(told)
	return s, nil
}

// addresses returns the host:port of each server in a list that is separated by commas.
func addresses(list string) ([]string, error) {
	var all []string
	for text := range strings.SplitSeq(list, ",") {
		at, err := address(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	if len(all) > maxServers {
		return nil, fmt.Errorf("join: %d servers are given: give at most %d", len(all), maxServers)
	}
	return all, nil
}

// usable returns the host:port of what a server has told, without what is no address.
func usable(told []string) []string {
	var all []string
	for _, text := range told[:min(len(told), maxServers)] {
		if at, err := address(text); err == nil && len(at) <= maxAddress && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}

// all returns every address, beginning with the one whose turn it is. mu must be held.
func (s *servers) all() []string {
	all := slices.Clone(s.given)
	for _, at := range s.told {
		if !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	s.turn %= len(all)
	return slices.Concat(all[s.turn:], all[:s.turn])
}

// first returns the address that is tried first.
func (s *servers) first() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all()[0]
}

// next gives the turn to the next server. It reports whether there is another one.
func (s *servers) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	return len(s.show()) > 1
}

// learn stores the addresses that a server has told. An empty list changes nothing: an older server tells none.
func (s *servers) learn(told []string) error {
	told = usable(told)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(told) == 0 || slices.Equal(told, s.told) {
		return nil
	}
	current := s.all()[0]
	s.told = told
	s.turn = 0
	s.turn = max(0, slices.Index(s.all(), current))
	s.show()
	text, err := json.Marshal(told)
	if err == nil {
		err = renameio.WriteFile(s.file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the addresses of the servers: %w", err)
	}
	return nil
}

// show passes the addresses on to the open connections, and returns them. mu must be held.
func (s *servers) show() []string {
	all := s.all()
	for _, r := range s.open {
		r.UpdateState(stateOf(all))
	}
	return all
}

// resolver returns the target of a new connection and what resolves it.
func (s *servers) resolver() (target string, r *manual.Resolver) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all()
	r = manual.NewBuilderWithScheme(scheme)
	r.InitialState(stateOf(all))
	s.open = append(s.open, r)
	return scheme + ":///" + all[0], r
}

func stateOf(all []string) resolver.State {
	var state resolver.State
	for _, at := range all {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: at})
	}
	return state
}
