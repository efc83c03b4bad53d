package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// sshRemote is the connection to one repository over ssh. Each request opens a new connection.
type sshRemote struct {
	cfg   Config
	addr  address
	creds credentials
}

func (r *sshRemote) close() {}

// list returns at least the refs with these prefixes.
func (r *sshRemote) list(ctx context.Context, prefixes []string) (l *listing, err error) {
	err = r.talk(ctx, maxListing, "the list of refs", func(a *advert, out io.Writer, p *pktReader) error {
		if !a.v2 {
			l = a.all
			_, err := out.Write(pkt(""))
			return err
		}
		if _, err := out.Write(a.lsRefs(prefixes)); err != nil {
			return err
		}
		if l, err = readLsRefs(p); err != nil {
			return err
		}
		_, err := out.Write(pkt(""))
		return err
	})
	return l, err
}

// fetch passes the pack to read.
func (r *sshRemote) fetch(ctx context.Context, w wish, read func(io.Reader, bool) error) error {
	most := r.cfg.MaxWireBytes + maxListing
	return r.talk(ctx, most, "what "+r.addr.String()+" sends for one commit", func(a *advert, out io.Writer, p *pktReader) error {
		request, err := a.fetch(w)
		if err != nil {
			return err
		}
		if _, err := out.Write(request); err != nil {
			return err
		}
		pack, err := a.readFetch(p)
		if err != nil {
			return err
		}
		return read(pack, a.filters() && !w.blobs)
	})
}

// talk opens a connection, starts git-upload-pack, reads its greeting and calls say.
func (r *sshRemote) talk(ctx context.Context, most int64, what string, say func(*advert, io.Writer, *pktReader) error) error {
	ctx, dog, stop := watch(ctx, r.cfg.IdleTimeout)
	defer stop()
	client, err := r.connect(ctx)
	if err != nil {
		return r.explain(ctx, err, "")
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	session, err := client.NewSession()
	if err != nil {
		return r.explain(ctx, err, "")
	}
	defer session.Close()
	complaint := &tail{}
	session.Stderr = complaint
	in, err := session.StdoutPipe()
	if err != nil {
		return r.explain(ctx, err, "")
	}
	out, err := session.StdinPipe()
	if err != nil {
		return r.explain(ctx, err, "")
	}
	_ = session.Setenv("GIT_PROTOCOL", "version=2") // most servers refuse; protocol 0 works too
	if err := session.Start("git-upload-pack " + quote(r.addr.path)); err != nil {
		return r.explain(ctx, err, "")
	}
	p := newPktReader(limit(in, dog, most, what))
	a, err := readAdvert(p)
	if err == nil {
		err = say(a, out, p)
	}
	if err != nil {
		_ = client.Close() // it is no longer needed
		_ = session.Wait() // only to get all of stderr; the error of say is more precise
		return r.explain(ctx, err, complaint.String())
	}
	return nil
}

// explain prefers the server's standard error over the end of file that followed it.
func (r *sshRemote) explain(ctx context.Context, err error, complaint string) error {
	switch {
	case ctx.Err() == nil && complaint != "" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		err = &remoteError{complaint}
	case strings.Contains(err.Error(), "unable to authenticate"):
		return sources.Human(api.ReasonAuthFailed, "%s does not accept the key for the user in spec.git.url: add its public half on the server, or change `ssh-privatekey` in the Secret", r.addr)
	}
	return explain(ctx, r.addr, r.creds, err)
}

func (r *sshRemote) connect(ctx context.Context) (*ssh.Client, error) {
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	conn, err := dialer(r.cfg.AllowCIDRs, r.cfg.ConnectTimeout)(ctx, "tcp", r.addr.host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, chans, reqs, err := ssh.NewClientConn(conn, r.addr.host, config)
	if err != nil {
		_ = conn.Close() // the handshake's error is more precise
		return nil, fmt.Errorf("ssh handshake: %w", err)
	}
	return ssh.NewClient(c, chans, reqs), nil
}

func (r *sshRemote) config() (*ssh.ClientConfig, error) {
	var methods []ssh.AuthMethod
	if len(r.creds.sshKey) > 0 {
		signer, err := r.signer()
		if err != nil {
			return nil, err
		}
		methods = append(methods, ssh.PublicKeys(signer))
	}
	if r.creds.password != "" {
		methods = append(methods, ssh.Password(r.creds.password))
	}
	check, err := readKnownHosts(r.creds.knownHosts)
	if err != nil {
		return nil, err
	}
	return &ssh.ClientConfig{
		User: r.addr.user, Auth: methods, Timeout: r.cfg.ConnectTimeout,
		HostKeyCallback: check, HostKeyAlgorithms: algorithms(check, r.addr.host),
	}, nil
}

func (r *sshRemote) signer() (ssh.Signer, error) {
	var signer ssh.Signer
	var err error
	if len(r.creds.sshPassphrase) > 0 {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(r.creds.sshKey, []byte(trimmed(r.creds.sshPassphrase)))
	} else {
		signer, err = ssh.ParsePrivateKey(r.creds.sshKey)
	}
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, sources.Human(api.ReasonAuthFailed, "the Secret's `ssh-privatekey` has a passphrase; add `ssh-passphrase`, or use a key without")
	}
	if err != nil {
		return nil, sources.Human(api.ReasonAuthFailed, "the Secret's `ssh-privatekey` cannot be read (or its passphrase is wrong): it must be an OpenSSH or PEM private key")
	}
	return signer, nil
}

// algorithms returns the algorithms of the known host keys, so that the server is asked for a key that can be checked. It
// gets the known keys from the mismatch error of a key that matches none of them.
func algorithms(check ssh.HostKeyCallback, host string) []string {
	var mismatch *knownhosts.KeyError
	if err := check(host, &net.TCPAddr{IP: net.IPv4zero}, nobodysKey{}); !errors.As(err, &mismatch) {
		return nil
	}
	var algos []string
	for _, known := range mismatch.Want {
		switch t := known.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			algos = append(algos, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			algos = append(algos, t)
		}
	}
	return algos
}

type nobodysKey struct{}

func (nobodysKey) Type() string                        { return "none" }
func (nobodysKey) Marshal() []byte                     { return []byte("none") }
func (nobodysKey) Verify([]byte, *ssh.Signature) error { return errors.New("nobody's key") }

// quote quotes a path for the server's shell.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// tail keeps the first 4 KiB of a server's standard error.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	if room := 4096 - len(t.b); room > 0 {
		t.b = append(t.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
