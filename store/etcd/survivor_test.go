package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd/survivor"
)

// TestSurvivor reads everything that was written from one of three members, after the others are lost and without a clean stop,
// with etcd's authentication by certificates. The member's files do not change.
func TestSurvivor(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			c := testetcd.Start(t, testetcd.Config{Program: program, Members: 3, TLS: true})
			s := openTest(t, c, Config{Prefix: "/cara/"})
			for i := range 20 {
				mustCommit(t, s, put("k/"+string(rune('a'+i)), 1000))
			}
			all, err := s.List(t.Context(), "", store.ListOptions{})
			must(t, err)
			must(t, s.Close())
			loginByCertificate(t, c)
			cfg := survivor.Config{DataDir: c.DataDir(2), Program: c.Program()}
			err = survivor.Run(t.Context(), cfg, nil)
			if err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("while etcd runs: %v", err)
			}
			for i := range 3 {
				c.Kill(i)
			}
			before := files(t, c.DataDir(2))
			temporary := t.TempDir()
			t.Setenv("TMPDIR", temporary)
			read := func(ctx context.Context, endpoint string, secure *tls.Config) error {
				s := reach(ctx, t, Config{Endpoints: []string{endpoint}, TLS: secure, Prefix: "/cara/"})
				got, err := s.List(ctx, "", store.ListOptions{})
				return errors.Join(err, s.Close(), Equal(all, got)) //nolint:contextcheck // it closes also when ctx has ended
			}
			must(t, survivor.Run(t.Context(), cfg, read))
			if after := files(t, c.DataDir(2)); after != before {
				t.Errorf("the member's files were %s and are %s", before, after)
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("left in the temporary directory: %v, %v", left, err)
			}
		})
	}
}

// reach opens a store as soon as etcd answers.
func reach(ctx context.Context, t *testing.T, cfg Config) (s *Store) {
	t.Helper()
	eventually(t, "etcd answers", func() bool {
		opened, err := Open(ctx, cfg)
		if err != nil && !Silent(err) {
			t.Fatal(err)
		}
		s = opened
		return err == nil
	})
	return s
}

// loginByCertificate turns etcd's authentication on. The user is the name in the client certificate.
func loginByCertificate(t *testing.T, c *testetcd.Cluster) {
	t.Helper()
	client := admin(t, c, "")
	for _, do := range []func() error{
		func() error { _, err := client.UserAdd(t.Context(), "root", "root"); return err },
		func() error { _, err := client.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := client.RoleAdd(t.Context(), "cara"); return err },
		func() error {
			_, err := client.RoleGrantPermission(t.Context(), "cara", "/cara/", end("/cara/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserAdd(t.Context(), "cara-client", "unused"); return err },
		func() error { _, err := client.UserGrantRole(t.Context(), "cara-client", "cara"); return err },
		func() error { _, err := client.AuthEnable(t.Context()); return err },
	} {
		must(t, do())
	}
}

// files returns the names, sizes and times of a directory's files.
func files(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil {
			all = append(all, info.Mode().String()+" "+info.ModTime().String()+" "+path)
		}
		return err
	}))
	return strings.Join(all, "\n")
}

func TestSurvivorRefused(t *testing.T) {
	member := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(member, "member", "wal"), 0o700))
	must(t, os.MkdirAll(filepath.Join(member, "member", "snap"), 0o700))
	must(t, os.WriteFile(filepath.Join(member, "member", "snap", "db"), []byte("damaged"), 0o600))
	wait := func(ctx context.Context, _ string, _ *tls.Config) error { <-ctx.Done(); return ctx.Err() }
	for name, tt := range map[string]struct{ dir, program, want string }{
		"no member":  {t.TempDir(), "sh", "has no member/snap/db"},
		"no program": {member, "/no/etcd", "name the one of the lost cluster with --etcd-program"},
		"it ends":    {member, "false", "its version must be that of the lost cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			err := survivor.Run(t.Context(), survivor.Config{DataDir: tt.dir, Program: tt.program}, wait)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
