// Package content keeps the contents of the files that the projects of a node use with `files[].from`.
//
// The agent fetches a content from the server before it creates the first container that needs it. So an update whose files
// cannot be fetched stops nothing, and a container can be created while the server is away.
//
// Invariants:
//
//   - A content is stored under its SHA-256, is written as a whole, and is checked at each read.
//   - Nothing of a Secret is stored here.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

var isDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// patience limits one call of the server.
const patience = time.Minute

// Store is a directory of contents.
type Store struct {
	dir   string
	files carav1.FileServiceClient
	used  func() map[string]bool

	mu   sync.Mutex
	have map[string]bool // what is in the directory; nil until it was read
}

// New returns a Store. It does nothing yet. used returns the contents that the projects of the node use.
func New(dir string, files carav1.FileServiceClient, used func() map[string]bool) *Store {
	return &Store{dir: dir, files: files, used: used}
}

// Missing returns which of the contents are not stored.
func (s *Store) Missing(digests []string) map[string]bool {
	if len(digests) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	missing := map[string]bool{}
	for _, d := range digests {
		if !s.have[d] {
			missing[d] = true
		}
	}
	return missing
}

// look reads the directory once. Nobody else writes to it.
func (s *Store) look() {
	if s.have != nil {
		return
	}
	s.have = map[string]bool{}
	entries, _ := os.ReadDir(s.dir) // what is not seen is fetched again
	for _, e := range entries {
		if isDigest.MatchString(e.Name()) {
			s.have[e.Name()] = true
		}
	}
}

// Fetch gets contents from the server, and removes those that no project uses any more.
func (s *Store) Fetch(ctx context.Context, digests []string) error {
	s.sweep()
	for digest := range s.Missing(digests) {
		got, err := s.get(ctx, digest)
		if err != nil {
			return fmt.Errorf("fetch the files of the service from the server: %s", api.ProblemOf(err).GetDetail())
		}
		if api.Digest(got.GetContent()) != digest {
			return fmt.Errorf("fetch the files of the service from the server: the content of %.12s is damaged", digest)
		}
		if err := s.write(digest, got.GetContent()); err != nil {
			return fmt.Errorf("store the files of the service: %w", err)
		}
	}
	return nil
}

func (s *Store) get(ctx context.Context, digest string) (*carav1.BlobContent, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.files.GetBlob(ctx, &carav1.GetRequest{Name: digest})
}

func (s *Store) write(digest string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(s.dir, digest), data, 0o600); err != nil {
		return err
	}
	s.have[digest] = true
	return nil
}

// Read returns a stored content. One that is damaged or gone is fetched again by the next Fetch.
func (s *Store) Read(digest string) ([]byte, error) {
	data, err := s.read(digest)
	if err == nil && api.Digest(data) == digest {
		return data, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, digest)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("the content %.12s is damaged or gone, and is fetched again", digest)
	}
	return nil, fmt.Errorf("read the files of the service: %w", err)
}

func (s *Store) read(digest string) ([]byte, error) {
	if !isDigest.MatchString(digest) {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(s.dir, digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, api.MaxFileBytes+1))
}

// sweep removes the contents that no project uses.
func (s *Store) sweep() {
	used := s.used()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	for digest := range s.have {
		if !used[digest] && os.Remove(filepath.Join(s.dir, digest)) == nil {
			delete(s.have, digest)
		}
	}
}
