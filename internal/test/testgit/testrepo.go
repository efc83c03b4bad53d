package testgit

import (
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestRepo is a Repo for a test. Errors fail the test.
type TestRepo struct {
	*Repo
	tb testing.TB
}

// New creates an empty repository root/name.git. Without git it skips the test, or fails it if E2E=1.
func New(tb testing.TB, root, name string) *TestRepo {
	tb.Helper()
	testneed.Program(tb, "git", "git")
	repo, err := Create(tb.Context(), root, name)
	if err != nil {
		tb.Fatal(err)
	}
	return &TestRepo{Repo: repo, tb: tb}
}

func (r *TestRepo) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// Write is Repo.Write.
func (r *TestRepo) Write(path, content string) {
	r.tb.Helper()
	r.must(r.Repo.Write(path, content))
}

// Remove is Repo.Remove.
func (r *TestRepo) Remove(path string) {
	r.tb.Helper()
	r.must(r.Repo.Remove(path))
}

// Symlink is Repo.Symlink.
func (r *TestRepo) Symlink(path, target string) {
	r.tb.Helper()
	r.must(r.Repo.Symlink(path, target))
}

// Commit is Repo.Commit.
func (r *TestRepo) Commit(message string) string {
	r.tb.Helper()
	commit, err := r.Repo.Commit(r.tb.Context(), message)
	r.must(err)
	return commit
}

// Push is Repo.Push.
func (r *TestRepo) Push() {
	r.tb.Helper()
	r.must(r.Repo.Push(r.tb.Context()))
}

// ForcePush is Repo.ForcePush.
func (r *TestRepo) ForcePush() {
	r.tb.Helper()
	r.must(r.Repo.ForcePush(r.tb.Context()))
}

// Branch is Repo.Branch.
func (r *TestRepo) Branch(name string) {
	r.tb.Helper()
	r.must(r.Repo.Branch(r.tb.Context(), name))
}

// DeleteBranch is Repo.DeleteBranch.
func (r *TestRepo) DeleteBranch(name string) {
	r.tb.Helper()
	r.must(r.Repo.DeleteBranch(r.tb.Context(), name))
}

// Tag is Repo.Tag.
func (r *TestRepo) Tag(name string) {
	r.tb.Helper()
	r.must(r.Repo.Tag(r.tb.Context(), name))
}

// Reset is Repo.Reset.
func (r *TestRepo) Reset(commit string) {
	r.tb.Helper()
	r.must(r.Repo.Reset(r.tb.Context(), commit))
}
