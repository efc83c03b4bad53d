package sources_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testsops"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an in-memory source that records its calls.
type memory struct {
	mu     sync.Mutex
	files  map[string]string
	rev    int
	err    error
	secret map[string][]byte
	hang   bool
	reads  []string
	trees  int
	closed int
	opened int
}

func (m *memory) Spec() *carav1.SourceSpec {
	s := &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://example.com/app.git"}}
	if m.secret != nil {
		s.Git.SecretRef = "credentials"
	}
	return s
}
func (m *memory) Secret() map[string][]byte { return m.secret }
func (m *memory) Opener() sources.Opener    { return m }
func (m *memory) Symlink(string, string)    {}
func (m *memory) Break()                    { m.set(func() { m.err = sources.Retry("Unreachable", "broken") }) }
func (m *memory) Mend()                     { m.set(func() { m.err = nil }) }
func (m *memory) Publish()                  { m.set(func() { m.rev++ }) }
func (m *memory) Write(path, content string) {
	m.set(func() {
		if m.files == nil {
			m.files = map[string]string{}
		}
		m.files[path] = content
	})
}
func (m *memory) Remove(path string) { m.set(func() { delete(m.files, path) }) }

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memory) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) {
	m.set(func() { m.opened++ })
	return m, nil
}

func (m *memory) Close() { m.set(func() { m.closed++ }) }

func (m *memory) Probe(ctx context.Context, _ time.Duration) (string, error) {
	m.mu.Lock()
	hang := m.hang
	defer m.mu.Unlock()
	if hang {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return "", ctx.Err()
	}
	return fmt.Sprintf("rev-%09d", m.rev), m.err
}

func (m *memory) Tree(_ context.Context, revision string) (*sources.Tree, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trees++
	t := &sources.Tree{Revision: revision}
	for path, content := range m.files {
		t.Files = append(t.Files, sources.File{Path: path, Hash: fmt.Sprintf("%x", content), Read: func(context.Context) ([]byte, error) {
			m.set(func() { m.reads = append(m.reads, path) })
			return []byte(content), nil
		}})
	}
	return t, nil
}

func (m *memory) taken() (reads []string, trees int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reads, trees = m.reads, m.trees
	m.reads, m.trees = nil, 0
	return reads, trees
}

func start(t *testing.T, m *memory) *sourcetest.Harness {
	w := sourcetest.New(t, m)
	w.Start()
	return w
}

func TestOnlyWhatChangedIsRead(t *testing.T) {
	m := &memory{}
	for i := range 1000 {
		m.Write(fmt.Sprintf("%03d.yaml", i), sourcetest.Project(fmt.Sprintf("p%03d", i), "web:1"))
	}
	m.Write("bad.yaml", "kind: Project\n")
	w := start(t, m)
	w.Create()
	if p := w.Published(1); p.Messages < 2 || len(p.Upserts) != 1000 {
		t.Errorf("%d claims in %d messages", len(p.Upserts), p.Messages)
	}
	m.taken()
	m.Write("500.yaml", sourcetest.Project("p500", "web:2"))
	m.Publish()
	w.Hint()
	if p := w.Published(2); len(p.Upserts) != 1 {
		t.Errorf("%d claims", len(p.Upserts))
	}
	if reads, trees := m.taken(); len(reads) != 1 || trees != 1 {
		t.Errorf("read %v in %d trees", reads, trees)
	}
	m.Remove("bad.yaml")
	m.Publish()
	w.Hint()
	w.Published(3)
	m.taken()
	w.Looked()
	w.Stop()
	w.Start()
	polled := w.Server.Polled(sourcetest.Name)
	w.Wait("a poll after the restart", func() bool { return w.Server.Polled(sourcetest.Name) > polled })
	m.Write("501.yaml", sourcetest.Project("p501", "web:2"))
	m.Publish()
	w.Hint()
	w.Published(4)
	if reads, trees := m.taken(); len(reads) != 1 || trees != 1 {
		t.Errorf("after a restart: read %v in %d trees", reads, trees)
	}
}

// beside opens one source normally, and all others hang.
type beside struct{ *memory }

func (b beside) Opener() sources.Opener { return b }

func (b beside) Open(spec *carav1.SourceSpec, secret map[string][]byte) (sources.Driver, error) {
	if strings.Contains(spec.Git.Url, "slow") {
		return &memory{hang: true}, nil
	}
	return b.memory.Open(spec, secret)
}

func TestSourcesThatHangCostOthersNothing(t *testing.T) {
	m := &memory{}
	m.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w := sourcetest.New(t, beside{m})
	for i := range 5 {
		w.Server.Put(&carav1.Source{
			Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("hang-%d", i), Uid: "u", Generation: 1},
			Spec:     &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://slow.example.com/a.git"}},
		})
	}
	w.Start()
	w.Create()
	w.Published(1)
	w.Stop() // must not wait for those that hang
}

func TestAPIFailureIsRetried(t *testing.T) {
	m := &memory{}
	m.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w := start(t, m)
	w.Server.Refuse("UpdateSourceStatus", api.Errorf(codes.Unavailable, "Unavailable", "down"))
	w.Create()
	w.Published(1)
	w.Server.Refuse("UpdateSourceStatus", nil)
	w.Wait("a poll", func() bool { return w.Server.Poll(sourcetest.Name) != nil })
	if n := len(w.Server.Publishes()); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

func TestSecretMissing(t *testing.T) {
	m := &memory{}
	w := start(t, m)
	w.Create(func(s *carav1.SourceSpec) { s.Git.SecretRef = "deploy-key" })
	reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue)
	if reason != "AuthFailed" || message != `Secret "deploy-key", which spec.git.secretRef names, does not exist; create it with `+"`caractrl apply`" {
		t.Errorf("%s: %s", reason, message)
	}
	w.Server.Secret(sourcetest.Name, map[string][]byte{"token": []byte("x")})
	w.Change(func(s *carav1.Source) { s.Status.RequestedToken = "again" })
	w.Condition(api.CondFetchFailed, api.StatusFalse)
}

func TestRotatedSecretOpensAgain(t *testing.T) {
	m := &memory{secret: map[string][]byte{"token": []byte("one")}}
	w := start(t, m)
	w.Create()
	w.Published(1)
	w.Looked()
	w.Looked()
	w.Server.Secret(sourcetest.Name, map[string][]byte{"token": []byte("two")})
	w.Looked()
	m.set(func() {
		if m.opened != 2 || m.closed != 1 {
			t.Errorf("opened %d times, closed %d times", m.opened, m.closed)
		}
	})
}

// TestPublicationEndsHalfway: the server has stored the snapshot, but not deleted the Secrets that left the source. The source
// publishes again, although nothing has changed.
func TestPublicationEndsHalfway(t *testing.T) {
	m := &memory{}
	w := start(t, m)
	w.Server.Secret(sourcetest.Name, map[string][]byte{"age.key": []byte(testsops.NewKey(t).Private)})
	w.Create(func(s *carav1.SourceSpec) { s.Decryption = &carav1.Decryption{SecretRef: "age"} })
	w.Published(1)
	w.Looked()
	w.Server.FailHalfway()
	m.Publish()
	w.Hint()
	w.Published(2)
	if again := w.Published(3); again.Head.GetRevision() != w.Server.Publishes()[1].Head.GetRevision() {
		t.Errorf("the revision is %s, and nothing has changed since %s", again.Head.GetRevision(), w.Server.Publishes()[1].Head.GetRevision())
	}
	w.Looked()
	w.Looked()
	if n := len(w.Server.Publishes()); n != 3 {
		t.Errorf("%d publications of a source that has not changed", n)
	}
}

func TestDeletedSourceIsLetGo(t *testing.T) {
	m := &memory{}
	w := start(t, m)
	w.Create()
	w.Published(1)
	w.Looked()
	w.Server.Delete(api.KindSource, sourcetest.Name)
	w.Wait("the driver is closed", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.closed == 1
	})
}

func TestManyCommitsEndAtTheLast(t *testing.T) {
	m := &memory{}
	w := start(t, m)
	w.Create()
	w.Published(1)
	m.taken()
	for i := range 200 {
		m.Write("a.yaml", sourcetest.Project("a", fmt.Sprintf("web:%d", i)))
		m.Publish()
		w.Hint()
	}
	w.Wait("the last commit", func() bool { return w.Source().Status.Snapshot.Revision == "rev-000000200" })
	t.Logf("%d snapshots of 200 commits", len(w.Server.Publishes()))
}

func TestSecretsAreNeverShown(t *testing.T) {
	m := &memory{secret: map[string][]byte{"token": []byte("hunter2-planted")}}
	w := start(t, m)
	m.Break()
	w.Create()
	w.Condition(api.CondFetchFailed, api.StatusTrue)
	w.Stop()
	var all bytes.Buffer
	fmt.Fprint(&all, w.Log, w.Source(), w.Server.Events())
	if strings.Contains(all.String(), "hunter2") {
		t.Errorf("a credential is shown: %s", &all)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := (sources.Config{}).Validate(); err == nil {
		t.Error("an empty configuration is valid")
	}
}
