package apiserver

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	backupChunk  = 256 << 10
	backupPrefix = "backup-" // of the directory where a backup is made
)

// checkpointer is a store that can copy itself while it serves. dir must not exist yet.
type checkpointer interface {
	Checkpoint(ctx context.Context, dir string) error
}

// Backup streams a data directory as a tar archive: a consistent snapshot of the store, and the files of the identity.
func (s infoService) Backup(_ *emptypb.Empty, out grpc.ServerStreamingServer[carav1.BackupChunk]) error {
	st, ok := s.db.Store.(checkpointer)
	if !ok || s.cfg.Identity == nil {
		return api.Errorf(codes.Unimplemented, api.TitleUnavailable, "this server's store cannot be backed up while it runs")
	}
	if !s.backup.TryLock() {
		return api.Errorf(codes.Unavailable, api.TitleTooMany, "another backup is being made: wait for its end")
	}
	defer s.backup.Unlock()
	dir, err := os.MkdirTemp(s.cfg.Identity.Dir(), backupPrefix)
	if err != nil {
		return s.noBackup(err)
	}
	defer s.dropBackups()
	if err := st.Checkpoint(out.Context(), filepath.Join(dir, "store")); err != nil {
		return s.noBackup(err)
	}
	sink := bufio.NewWriterSize(chunks{out}, backupChunk)
	archive := tar.NewWriter(sink)
	for _, name := range s.cfg.Identity.Files() {
		err := archiveFile(archive, filepath.Join(s.cfg.Identity.Dir(), name), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the owner may have removed a token file
			return s.noBackup(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, identity.FromBackupFile), nil, 0o600); err != nil {
		return s.noBackup(err)
	}
	if err := archiveTree(out.Context(), archive, dir); err != nil {
		return s.noBackup(err)
	}
	if err := errors.Join(archive.Close(), sink.Flush()); err != nil {
		return s.noBackup(err)
	}
	return nil
}

func (s infoService) noBackup(err error) error {
	return api.Internal("make a backup: %v", err)
}

// dropBackups removes leftovers of backups from the data directory: their links would keep old store files on disk.
func (s *Server) dropBackups() {
	left, err := filepath.Glob(filepath.Join(s.cfg.Identity.Dir(), backupPrefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		s.cfg.Logger.Warn("backup's directory not removed", "error", err)
	}
}

// archiveTree adds all files below dir to the archive.
func archiveTree(ctx context.Context, archive *tar.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !e.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return archiveFile(archive, path, filepath.ToSlash(name))
	})
}

func archiveFile(archive *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.CopyN(archive, f, info.Size()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// chunks is a writer that sends what is written as BackupChunk messages.
type chunks struct {
	out grpc.ServerStreamingServer[carav1.BackupChunk]
}

func (c chunks) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); sent += backupChunk {
		part := p[sent:min(len(p), sent+backupChunk)]
		if err := c.out.Send(&carav1.BackupChunk{Data: append([]byte(nil), part...)}); err != nil {
			return sent, err
		}
	}
	return len(p), nil
}
