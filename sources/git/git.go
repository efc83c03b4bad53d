package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// Config configures git sources.
type Config struct {
	// AllowCIDRs are the loopback, link-local and private addresses that sources may reach.
	AllowCIDRs []netip.Prefix
	// Proxy is the proxy for http and https: `http://`, `https://` or `socks5://`. Nil means none: the proxy environment
	// variables are ignored. ssh does not use it.
	Proxy *url.URL

	// MaxWireBytes is the maximum size of one fetch. The default is 128 MiB.
	MaxWireBytes int64
	// ConnectTimeout applies to a connection, and to a TLS or ssh handshake. The default is 10 s.
	ConnectTimeout time.Duration
	// IdleTimeout ends a stream that sends nothing for this long, or less than 1 KiB in four times as long. The default is 30
	// s.
	IdleTimeout time.Duration
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.MaxWireBytes = cmp.Or(c.MaxWireBytes, 128<<20)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 30*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// remote is the connection to one repository.
type remote interface {
	// list returns at least the refs with these prefixes.
	list(ctx context.Context, prefixes []string) (*listing, error)
	close()
}

// fetcher is a remote that sends packs: each but localRemote. The pack is valid while read runs. filtered is true if the server was
// asked to omit large blobs.
type fetcher interface {
	fetch(ctx context.Context, w wish, read func(pack io.Reader, filtered bool) error) error
}

// Git opens drivers for git sources. Sources with the same address and credentials share a connection and probes.
type Git struct {
	cfg Config

	mu     sync.Mutex
	shared map[string]*shared // by address and credentials
	kept   int64              // bytes of the folders that drivers keep
}

// New returns an Opener of git sources.
func New(cfg Config) *Git { return &Git{cfg: cfg.withDefaults(), shared: map[string]*shared{}} }

// Open returns the driver of one source.
func (g *Git) Open(spec *carav1.SourceSpec, secret map[string][]byte) (sources.Driver, error) {
	addr, err := parseAddress(spec.GetGit().GetUrl())
	if err != nil {
		return nil, err
	}
	if err := checkRef(spec.GetGit().GetRef()); err != nil {
		return nil, err
	}
	match, err := sources.NewMatch(spec)
	if err != nil {
		return nil, err
	}
	creds, err := readCredentials(addr, secret, spec.GetGit().GetInsecure())
	if err != nil {
		return nil, err
	}
	if addr.scheme == "ssh" {
		creds.knownHosts, creds.badLines = usableLines(creds.knownHosts)
	}
	return &driver{
		git: g, addr: addr, ref: spec.GetGit().GetRef(), match: match, shared: g.join(addr, creds),
		differs: sources.ReadsDifferences(spec), warnings: badLines(spec.GetGit().GetSecretRef(), creds.badLines),
	}, nil
}

func (g *Git) join(a address, c credentials) *shared {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := fmt.Sprintf("%s %s@%s", c.id, a.user, a)
	s, ok := g.shared[key]
	if !ok {
		s = &shared{key: key, turn: make(chan struct{}, 1), asked: map[string]bool{}, now: g.cfg.Now}
		switch a.scheme {
		case "file":
			s.remote = &localRemote{a}
		case "ssh":
			s.remote = &sshRemote{g.cfg, a, c}
		default:
			s.remote = newHTTPRemote(g.cfg, a, c)
		}
		g.shared[key] = s
	}
	s.users++
	return s
}

func (g *Git) leave(s *shared) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(g.shared, s.key)
		s.remote.close()
	}
}

type driver struct {
	git     *Git
	addr    address
	ref     *carav1.GitRef
	match   *sources.Match
	shared  *shared
	last    target    // result of the last probe
	peeled  string    // commit that was read last
	differs bool      // differences may be asked for
	kept    *kept     // the folders of that commit; nil if they are not known
	whole   time.Time // until then, no differences are asked for: the server did not send one

	warnings []*carav1.FileProblem // about the Secret
}

// Close releases the connection.
func (d *driver) Close() {
	d.keep(nil)
	d.git.leave(d.shared)
}

// Probe returns the commit of the ref.
func (d *driver) Probe(ctx context.Context, maxAge time.Duration) (string, error) {
	if c := d.ref.GetCommit(); c != "" {
		// A hash never changes. If it is the hash of an annotated tag, the first fetch finds the commit.
		d.last = target{want: c, commit: cmp.Or(d.peeled, c)}
		return d.last.commit, nil
	}
	l, err := d.shared.list(ctx, prefixes(d.ref), maxAge)
	if err != nil {
		return "", err
	}
	found, ok := pick(d.ref, l)
	if !ok {
		all, err := d.shared.remote.list(ctx, []string{"refs/heads/", "refs/tags/"})
		if err != nil {
			return "", err
		}
		return "", missing(d.ref, d.addr, all)
	}
	d.last = found
	return found.commit, nil
}

// Tree fetches the commit and lists its manifests.
func (d *driver) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	if revision != d.last.commit {
		return nil, fmt.Errorf("tree of %s: not what was probed: %w", revision, sources.ErrMoved)
	}
	d.keep(nil)
	objs, err := d.objects(ctx, wish{want: []string{d.last.want}}, nil)
	if errors.Is(err, errNoCommit) {
		err = d.moved(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	t, err := d.tree(ctx, objs)
	if err != nil {
		objs.close()
		return nil, explain(ctx, d.addr, credentials{}, err)
	}
	t.Close = objs.close
	t.Warnings = d.warnings
	return t, nil
}

// moved returns the error for a probed commit that cannot be fetched. If the ref has moved, the source is read again
// immediately. Otherwise the repository is damaged, or the server does not provide what it lists.
func (d *driver) moved(ctx context.Context, err error) error {
	if d.ref.GetCommit() != "" {
		return err
	}
	l, listErr := d.shared.list(ctx, prefixes(d.ref), 0)
	if listErr != nil {
		return listErr
	}
	found, ok := pick(d.ref, l)
	if !ok || found.want != d.last.want {
		return fmt.Errorf("fetch %s: %w", d.last.want, sources.ErrMoved)
	}
	return sources.Retry(api.ReasonReadFailed, "%s lists %.12s as %s and does not give it out; run `git fsck` there",
		d.addr, d.last.want, cmp.Or(d.last.name, "HEAD"))
}

func (d *driver) tree(ctx context.Context, objs objects) (*sources.Tree, error) {
	c, err := findCommit(objs, plumbing.NewHash(d.last.want))
	if errors.Is(err, errAbsent) {
		return nil, d.moved(ctx, sources.Human(api.ReasonRefNotFound, "%s has no commit %s; check spec.git.ref", d.addr, d.last.want))
	}
	if err != nil {
		return nil, err
	}
	where := d.where(c)
	if err := checkRoot(ctx, objs, c, d.match, where); err != nil {
		return nil, err
	}
	w, err := manifests(ctx, objs, c.tree, d.match, where)
	if err != nil {
		return nil, err
	}
	d.peeled = c.hash.String()
	t := d.named(c)
	t.Files, t.Problems, t.Unread = w.files, w.problems, w.unread
	files := &finder{objs: objs, root: c.tree, where: where}
	t.Lookup = files.find
	if len(w.hidden) > 0 {
		t.Hidden = w.hiddenFiles
	}
	if d.differs && !small(objs) {
		d.keep(newKept(c, objs))
	}
	return t, nil
}

// smallPack is the size of a pack that is not worth a difference: a difference takes a second fetch for the changed files.
const smallPack = 64 << 10

func small(objs objects) bool {
	p, remote := objs.(*pack)
	return remote && p.spool.size <= smallPack
}

// where names a commit in errors.
func (d *driver) where(c commit) string {
	where := fmt.Sprintf("%s at %.7s", d.addr, c.hash)
	if d.last.name != "" {
		where = fmt.Sprintf("%s (%s)", where, d.last.name)
	}
	return where
}

// named returns the tree of a commit, without its files.
func (d *driver) named(c commit) *sources.Tree {
	return &sources.Tree{Revision: c.hash.String(), Ref: d.last.name, Author: c.author, Subject: c.subject, Time: c.time}
}

// objects makes the objects that are wished for readable: in place for a local repository, otherwise by a fetch, whose deltas may
// build on known folders.
func (d *driver) objects(ctx context.Context, w wish, known map[plumbing.Hash]object) (objects, error) {
	if local, ok := d.shared.remote.(*localRemote); ok {
		return local.objects()
	}
	s := &spool{}
	var p *pack
	err := d.shared.remote.(fetcher).fetch(ctx, w, func(r io.Reader, filtered bool) (err error) {
		if p, err = readPack(r, s, known); err == nil {
			p.filtered = filtered
		}
		return err
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return p, nil
}
