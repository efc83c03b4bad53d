package testgit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// SSH serves every repository below a root with OpenSSH, for reading and pushing. Each connection has its own sshd process,
// with separate host and client keys, for the current user, who gets only git-shell.
type SSH struct {
	PrivateKey []byte // of the client, PEM
	KnownHosts string // known_hosts line for clients
	// OtherKnownHosts has the same address with another key, as in a man-in-the-middle attack.
	OtherKnownHosts string
	User            string

	root    string
	config  string // path of sshd_config
	program string // path of sshd
	address string

	mu          sync.Mutex
	listener    net.Listener // nil while down
	stop        context.CancelFunc
	running     sync.WaitGroup
	connections int
}

// ServeSSH serves root for a test. Without git or sshd it skips the test, or fails it if E2E=1.
func ServeSSH(tb testing.TB, root string) *SSH {
	tb.Helper()
	testneed.Program(tb, "git", "git")
	testneed.Program(tb, "git-shell", "git")
	testneed.Program(tb, "sshd", "openssh-server")
	s, err := StartSSH(tb.Context(), root, tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Down(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// StartSSH is ServeSSH for programs. It writes keys and configuration to dir. Down ends it.
func StartSSH(ctx context.Context, root, dir string) (*SSH, error) {
	program, err := testneed.Look("sshd")
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	current, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s := &SSH{root: root, program: program, address: "127.0.0.1:0", User: current.Username}
	if err := s.Up(ctx); err != nil {
		return nil, err
	}
	if err := s.configure(dir); err != nil {
		return nil, errors.Join(err, s.Down())
	}
	return s, nil
}

// RepoURL returns the clone URL of a repository.
func (s *SSH) RepoURL(name string) string {
	return "ssh://" + s.User + "@" + s.Addr() + filepath.ToSlash(filepath.Join(s.root, name+".git"))
}

// Addr returns host:port.
func (s *SSH) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Connections returns the number of connections since the start.
func (s *SSH) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// configure writes the keys and the configuration of sshd.
func (s *SSH) configure(dir string) error {
	_, hostKey, err := writeKey(filepath.Join(dir, "host_key"))
	if err != nil {
		return err
	}
	private, clientKey, err := writeKey(filepath.Join(dir, "client_key"))
	if err != nil {
		return err
	}
	_, strangerKey, err := writeKey(filepath.Join(dir, "stranger_key"))
	if err != nil {
		return err
	}
	s.PrivateKey = private
	s.KnownHosts = knownhosts.Line([]string{s.address}, hostKey) + "\n"
	s.OtherKnownHosts = knownhosts.Line([]string{s.address}, strangerKey) + "\n"
	s.config = filepath.Join(dir, "sshd_config")
	files := map[string]string{
		s.config: fmt.Sprintf(`HostKey %[1]s/host_key
AuthorizedKeysFile %[1]s/authorized_keys
ForceCommand exec git-shell -c "$SSH_ORIGINAL_COMMAND"
AcceptEnv GIT_PROTOCOL
AuthenticationMethods publickey
PermitRootLogin prohibit-password
DisableForwarding yes
PermitTTY no
StrictModes no
UsePAM no
# bash reads ~/.bashrc under sshd unless another shell is above it: what is in there belongs to no test.
SetEnv SHLVL=1
PidFile none
`, dir),
		filepath.Join(dir, "authorized_keys"): string(ssh.MarshalAuthorizedKey(clientKey)),
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure sshd: %w", err)
		}
	}
	if os.Geteuid() == 0 {
		// sshd requires this empty directory, which normally the service's start script creates.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return fmt.Errorf("configure sshd: %w", err)
		}
	}
	return nil
}

func writeKey(path string) (private []byte, public ssh.PublicKey, err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make an ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, "cara test")
	if err != nil {
		return nil, nil, fmt.Errorf("make an ssh key: %w", err)
	}
	public, err = ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("make an ssh key: %w", err)
	}
	private = pem.EncodeToMemory(block)
	if err := os.WriteFile(path, private, 0o600); err != nil {
		return nil, nil, fmt.Errorf("write an ssh key: %w", err)
	}
	return private, public, nil
}
