package git

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

const agent = "cara/1"

// advert is a server's greeting: its protocol, and in protocol 0 also every ref.
type advert struct {
	v2   bool
	caps map[string]string
	all  *listing // protocol 0 only
}

// readAdvert reads the greeting. Over http it may begin with a line that names the service.
func readAdvert(p *pktReader) (*advert, error) {
	line, kind, err := p.line()
	if err != nil {
		return nil, err
	}
	if kind == pktData && strings.HasPrefix(line, "# service=") {
		if _, _, err := p.next(); err != nil {
			return nil, err
		}
		if line, kind, err = p.line(); err != nil {
			return nil, err
		}
	}
	if kind == pktData && line == "version 2" {
		return readCapabilities(p)
	}
	return readRefs(p, line, kind)
}

func readCapabilities(p *pktReader) (*advert, error) {
	a := &advert{v2: true, caps: map[string]string{}}
	for {
		line, kind, err := p.line()
		if err != nil {
			return nil, err
		}
		if kind != pktData {
			return a, a.checkFormat()
		}
		key, value, _ := strings.Cut(line, "=")
		a.caps[key] = value
	}
}

func (a *advert) checkFormat() error {
	if f := a.caps["object-format"]; f != "" && f != "sha1" {
		return unreadFormat(f)
	}
	return nil
}

func unreadFormat(f string) error {
	return sources.Human(api.ReasonProtocolError, "the repository's object format is %s; only sha1 is read: push to a repository that was made without --object-format", f)
}

// readRefs reads the greeting of protocol 0: the refs, with the capabilities after the first one.
func readRefs(p *pktReader, line string, kind int) (*advert, error) {
	a := &advert{caps: map[string]string{}, all: &listing{refs: map[string]ref{}}}
	for first := true; kind == pktData; first = false {
		if first {
			var caps string
			line, caps, _ = strings.Cut(line, "\x00")
			a.readCaps(caps)
		}
		if err := a.all.add(line); err != nil {
			return nil, err
		}
		var err error
		if line, kind, err = p.line(); err != nil {
			return nil, err
		}
	}
	return a, a.checkFormat()
}

func (a *advert) readCaps(caps string) {
	for c := range strings.FieldsSeq(caps) {
		key, value, _ := strings.Cut(c, "=")
		a.caps[key] = value
		if to, ok := strings.CutPrefix(c, "symref=HEAD:"); ok {
			a.all.head = to
		}
	}
}

// add parses `HASH NAME`, where NAME^{} is the commit of an annotated tag.
func (l *listing) add(line string) error {
	hash, name, ok := strings.Cut(line, " ")
	if name == "capabilities^{}" || strings.HasPrefix(line, "shallow ") || line == "version 1" {
		return nil
	}
	if !ok || !isHash(hash) {
		return errors.New("the list of refs is malformed")
	}
	if tag, peeled := strings.CutSuffix(name, "^{}"); peeled {
		r := l.refs[tag]
		r.peeled = hash
		l.refs[tag] = r
		return nil
	}
	r := l.refs[name]
	r.hash = hash
	l.refs[name] = r
	return nil
}

// lsRefs returns the request for the refs with these prefixes, in protocol 2.
func (a *advert) lsRefs(prefixes []string) []byte {
	lines := append([]string{"command=ls-refs"}, a.common()...)
	lines = append(lines, delimiter, "peel", "symrefs")
	for _, p := range prefixes {
		lines = append(lines, "ref-prefix "+p)
	}
	return pkt(append(lines, "")...)
}

func (a *advert) common() []string {
	lines := []string{"agent=" + agent}
	if f := a.caps["object-format"]; f != "" {
		lines = append(lines, "object-format="+f)
	}
	return lines
}

func readLsRefs(p *pktReader) (*listing, error) {
	l := &listing{refs: map[string]ref{}}
	for {
		line, kind, err := p.line()
		if err != nil {
			return nil, err
		}
		if kind != pktData {
			return l, nil
		}
		fields := strings.Split(line, " ")
		if len(fields) < 2 || !isHash(fields[0]) {
			if fields[0] == "unborn" {
				continue
			}
			return nil, errors.New("the list of refs is malformed")
		}
		r := ref{hash: fields[0]}
		for _, attr := range fields[2:] {
			if peeled, ok := strings.CutPrefix(attr, "peeled:"); ok && isHash(peeled) {
				r.peeled = peeled
			}
			if to, ok := strings.CutPrefix(attr, "symref-target:"); ok && fields[1] == "HEAD" {
				l.head = to
			}
		}
		l.refs[fields[1]] = r
	}
}

// wish is what to fetch. The zero value of the other fields asks for one commit, with all its folders and files.
type wish struct {
	want []string // hashes
	// base is a commit whose folders are known. Then the folders that differ are sent, and no files: their deltas would need
	// contents that are not kept. A server omits known folders only in a thin pack.
	base string
	// blobs is true if want has blobs, not a commit.
	blobs bool
}

// errNoDifference means that the server sends whole commits only.
var errNoDifference = errors.New("the git server sends no differences")

// fetch returns the request for a wish. It never asks for history.
func (a *advert) fetch(w wish) ([]byte, error) {
	if (w.base != "" || w.blobs) && !a.filters() {
		return nil, errNoDifference
	}
	if a.v2 {
		return a.fetch2(w), nil
	}
	for _, needed := range []string{"side-band-64k", "shallow"} {
		if _, ok := a.caps[needed]; !ok {
			return nil, sources.Human(api.ReasonProtocolError, "the git server is too old: it lacks %s", needed)
		}
	}
	caps := []string{"want " + w.want[0] + " side-band-64k"}
	for _, c := range []string{"ofs-delta", "shallow", "no-progress"} {
		if _, ok := a.caps[c]; ok {
			caps = append(caps, c)
		}
	}
	return pkt(strings.Join(append(caps, "agent="+agent), " "), "deepen 1", "", "done"), nil
}

func (a *advert) fetch2(w wish) []byte {
	lines := append([]string{"command=fetch"}, a.common()...)
	lines = append(lines, delimiter, "ofs-delta", "no-progress")
	for _, h := range w.want {
		lines = append(lines, "want "+h)
	}
	switch {
	case w.base != "":
		lines = append(lines, "thin-pack", "have "+w.base, "shallow "+w.base, "deepen 1", "filter blob:none")
	case w.blobs:
	case a.filters():
		lines = append(lines, "deepen 1", fmt.Sprintf("filter blob:limit=%d", sources.MaxFileBytes+1))
	default:
		lines = append(lines, "deepen 1")
	}
	return pkt(append(lines, "done", "")...)
}

// filters reports whether the server can omit large blobs.
func (a *advert) filters() bool {
	return a.v2 && strings.Contains(" "+a.caps["fetch"]+" ", " filter ")
}

// readFetch reads the response up to the pack.
func (a *advert) readFetch(p *pktReader) (*packStream, error) {
	if !a.v2 {
		return a.readFetch0(p)
	}
	for {
		line, kind, err := p.line()
		if err != nil {
			return nil, err
		}
		if kind == pktData && line == "packfile" {
			return &packStream{p: p}, nil
		}
		if kind == pktFlush {
			return nil, errors.New("the server sent no pack")
		}
	}
}

// readFetch0 skips the shallow lines, which end with a flush, and the acknowledgement, after which the pack begins.
func (a *advert) readFetch0(p *pktReader) (*packStream, error) {
	for {
		line, kind, err := p.line()
		switch {
		case err != nil:
			return nil, err
		case kind == pktData && (line == "NAK" || strings.HasPrefix(line, "ACK ")):
			return &packStream{p: p}, nil
		case kind == pktData && (strings.HasPrefix(line, "shallow ") || strings.HasPrefix(line, "unshallow ")):
		case kind != pktData:
		default:
			return nil, errors.New("the answer to a fetch is malformed")
		}
	}
}
