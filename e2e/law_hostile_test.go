package e2e

import (
	"bytes"
	"compress/zlib"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// mirror is a git server that throws back what it was sent: in its errors, in redirects, in its own words.
func mirror(t *testing.T, secret string) (url string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/redirect.git"):
			w.Header().Set("Location", "http://"+user+":"+password+"@evil.example.com/app.git?token="+secret)
			w.WriteHeader(http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/words.git"):
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, line("# service=git-upload-pack\n")+"0000"+line("ERR access denied for "+user+":"+password+" ("+secret+")\n"))
		default:
			w.Header().Set("Content-Type", "text/"+secret)
			http.Error(w, r.Header.Get("Authorization")+" "+password, http.StatusTeapot)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// line is one of git's, with its length before it.
func line(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

// packWriter writes a pack object by object.
type packWriter struct {
	b bytes.Buffer
	n uint32
}

// put packs one object whose content may be too large to hold, and returns its hash.
func (p *packWriter) put(typ byte, name string, size int64, content io.Reader) []byte {
	head := typ<<4 | byte(size&15)
	for rest := size >> 4; ; rest >>= 7 {
		if rest == 0 {
			p.b.WriteByte(head)
			break
		}
		p.b.WriteByte(head | 0x80)
		head = byte(rest & 0x7f)
	}
	hash := sha1.New()
	fmt.Fprintf(hash, "%s %d\x00", name, size)
	z := zlib.NewWriter(&p.b)
	_, _ = io.Copy(io.MultiWriter(z, hash), content)
	_ = z.Close()
	p.n++
	return hash.Sum(nil)
}

func (p *packWriter) tree(entries string) []byte {
	return p.put(2, "tree", int64(len(entries)), strings.NewReader(entries))
}

func (p *packWriter) commit(tree []byte) string {
	text := "tree " + hex.EncodeToString(tree) + "\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nbomb\n"
	return hex.EncodeToString(p.put(1, "commit", int64(len(text)), strings.NewReader(text)))
}

func (p *packWriter) bytes() []byte {
	all := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.n)
	all = append(all, p.b.Bytes()...)
	sum := sha1.Sum(all)
	return append(all, sum[:]...)
}

// noughts never end.
type endlessZeros struct{}

func (endlessZeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// serving is a git server of one commit, whose pack is what send writes.
func serving(t *testing.T, commit string, send func(w io.Writer, r *http.Request)) (url string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, line("# service=git-upload-pack\n")+"0000"+line("version 2\n")+line("ls-refs=unborn\n")+line("fetch=shallow\n")+"0000")
			return
		}
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		if strings.Contains(string(body), "ls-refs") {
			_, _ = io.WriteString(w, line(commit+" refs/heads/main\n")+"0000")
			return
		}
		_, _ = io.WriteString(w, line("packfile\n"))
		send(w, r)
		_, _ = io.WriteString(w, "0000")
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL + "/app.git"
}

// band sends bytes as the pack's side-band.
func band(w io.Writer, data []byte) {
	for len(data) > 0 {
		n := min(len(data), 60_000)
		if _, err := io.WriteString(w, line("\x01"+string(data[:n]))); err != nil {
			return
		}
		data = data[n:]
	}
}

// A pack of 400 KB that inflates to 256 MiB, a tree bomb, a server that streams for ever and one that trickles cost
// the server less than 64 MiB, and other sources nothing.
func TestLawHostileRepositories(t *testing.T) {
	w := law(t)
	bomb := &packWriter{}
	big := bomb.put(3, "blob", 256<<20, io.LimitReader(endlessZeros{}, 256<<20))
	bombCommit := bomb.commit(bomb.tree("100644 big.yaml\x00" + string(big)))
	trees := &packWriter{}
	below := trees.tree("")
	for range 9 { // 10 folders of 10 folders of ...: 10^9 paths
		var entries strings.Builder
		for i := range 10 {
			fmt.Fprintf(&entries, "40000 %d\x00%s", i, below)
		}
		below = trees.tree(entries.String())
	}
	manifests := trees.put(3, "blob", 2, strings.NewReader("a\n"))
	var leaf strings.Builder
	for i := range 10 {
		fmt.Fprintf(&leaf, "100644 %d.yaml\x00%s", i, manifests)
	}
	below = trees.tree(leaf.String())
	for range 9 {
		var entries strings.Builder
		for i := range 10 {
			fmt.Fprintf(&entries, "40000 %d\x00%s", i, below)
		}
		below = trees.tree(entries.String())
	}
	treesCommit := trees.commit(below)
	whole := func(p *packWriter) func(io.Writer, *http.Request) {
		data := p.bytes()
		return func(w io.Writer, _ *http.Request) { band(w, data) }
	}
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), 400_000)
	hostile := map[string]string{
		"pack-bomb": serving(t, bombCommit, whole(bomb)),
		"tree-bomb": serving(t, treesCommit, whole(trees)),
		"for-ever": serving(t, bombCommit, func(w io.Writer, r *http.Request) {
			band(w, head)
			p := &packWriter{}
			noise := make([]byte, 1<<16)
			_, _ = rand.Read(noise)
			p.put(3, "blob", int64(len(noise)), bytes.NewReader(noise))
			for r.Context().Err() == nil {
				band(w, p.b.Bytes())
			}
		}),
		"one-byte-a-second": serving(t, bombCommit, func(w io.Writer, r *http.Request) {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					band(w, []byte{'P'})
					w.(http.Flusher).Flush()
				}
			}
		}),
	}
	good := w.origin("good", only("web:1", "web"))
	w.claim("good", "web", "Applied")
	idle := w.rss()
	for name, url := range hostile {
		w.source(name, "url: "+url)
	}
	w.untilSource("pack-bomb", "holds one bad file", func(s *carav1.Source) bool {
		return strings.Contains(condition(s.GetStatus().GetConditions(), api.CondInvalidManifests).GetMessage(),
			"big.yaml: is larger than 1 MiB, the limit of a manifest file; split it")
	})
	for name, words := range map[string]string{"tree-bomb": "more than 10000 manifest files", "for-ever": "is larger than"} {
		w.untilSource(name, "is too large", func(s *carav1.Source) bool {
			c := condition(s.GetStatus().GetConditions(), api.CondFetchFailed)
			return c.GetReason() == "TooLarge" && strings.Contains(c.GetMessage(), words)
		})
	}
	for i := range 3 {
		image := fmt.Sprintf("web:%d", i+2)
		good.Write("web.yaml", declared("web", image))
		good.save("Change")
		w.asks("web", image)
	}
	peak := w.peak()
	t.Logf("resident: idle %d MiB, at most %d MiB", idle, peak)
	if peak-idle > 64 {
		t.Errorf("hostile repositories cost %d MiB", peak-idle)
	}
	w.stay("web")
}
