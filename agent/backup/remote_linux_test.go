package backup

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/tests3"
)

func TestS3(t *testing.T) {
	server := tests3.Start(t)
	s := newSite(t, map[string][]byte{
		api.BackupRepository: []byte("s3:" + server.URL + "/backups/shop"),
		"AWS_ACCESS_KEY_ID":  []byte(tests3.AccessKey), "AWS_SECRET_ACCESS_KEY": []byte(tests3.SecretKey),
	})
	s.backUp(t, &hand{})
	s.write(t, "rows", "2")
	result := s.backUp(t, &hand{})
	s.quiet(t)
	if f := s.Verify(t.Context(), s.job, result.Snapshots); f != nil {
		t.Error(f)
	}
	if got := s.restic(t, "dump", result.Snapshots[0].GetId(), "/_data/rows"); got != "2" {
		t.Errorf("the snapshot has %q", got)
	}
	s.job.Values["AWS_SECRET_ACCESS_KEY"] = []byte("wrong-secret-key")
	s.fails(t, api.ReasonRepositoryDenied)
}

func TestSFTP(t *testing.T) {
	server := newSSH(t)
	s := newSite(t, map[string][]byte{
		api.BackupRepository: []byte(fmt.Sprintf("sftp://%s@%s/%s", server.user, server.address, filepath.Join(t.TempDir(), "repository"))),
		api.BackupSSHKey:     server.key, api.BackupKnownHosts: []byte(server.knownHosts),
	})
	result := s.backUp(t, &hand{})
	s.quiet(t)
	if f := s.Verify(t.Context(), s.job, result.Snapshots); f != nil {
		t.Error(f)
	}
	s.job.Values[api.BackupKnownHosts] = []byte(server.otherKnownHosts)
	s.fails(t, api.ReasonRepositoryDenied)
}

// sshServer is OpenSSH with a key of its own, for one client.
type sshServer struct {
	address, user, knownHosts, otherKnownHosts string
	key                                        []byte
}

func newSSH(t *testing.T) *sshServer {
	t.Helper()
	program := testneed.Program(t, "sshd", "openssh-server")
	dir := t.TempDir()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sshServer{address: l.Addr().String(), user: me.Username}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	hostKey, host := newKey(t)
	_, other := newKey(t)
	var client ssh.PublicKey
	s.key, client = newKey(t)
	s.knownHosts, s.otherKnownHosts = knownhosts.Line([]string{s.address}, host), knownhosts.Line([]string{s.address}, other)
	_, port, _ := net.SplitHostPort(s.address)
	config := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n", port, dir, dir)
	for name, data := range map[string][]byte{"host": hostKey, "authorized": ssh.MarshalAuthorizedKey(client), "config": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var output bytes.Buffer
	cmd := exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "config"))
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("sshd: %s", output.Bytes())
		}
	})
	for t.Context().Err() == nil {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = conn.Close() // only a look
			break
		}
	}
	return s
}

func newKey(t *testing.T) (private []byte, public ssh.PublicKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	public, err = ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), public
}
