package compose

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/compose-spec/compose-go/v2/types"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits of what becomes part of a manifest.
const (
	maxFiles   = 64         // of a directory
	maxContent = 256 * 1024 // bytes of a file
)

// oneFile makes a file beside the Compose file one of the service's files.
func (s mounts) oneFile(key, shown string, v types.ServiceVolumeConfig) {
	f := &carav1.File{Path: v.Target, From: s.beside(v.Source)}
	if f.From == "" {
		content, err := asText(readSmall(v.Source))
		if err != nil {
			s.say(Refusal, key, "%s cannot become a file of the service: %v", shown, err)
			return
		}
		f.Content = string(content)
		if info, err := os.Stat(v.Source); err == nil && info.Mode()&0o100 != 0 {
			f.Mode = "0555"
		}
	}
	s.out.Files = append(s.out.Files, f)
	if !v.ReadOnly {
		s.say(Note, key, "%s becomes a file of the service: what the container writes to it is lost with the container", shown)
	}
}

// beside returns a file or a directory with its slash as `files[].from` has it, or "" if it must become part of the manifest.
func (c *converter) beside(name string) string {
	if c.manifestDir == "" {
		return ""
	}
	target, err := filepath.EvalSymlinks(name) // links are not followed in a source
	rel, relErr := filepath.Rel(c.manifestDir, name)
	info, statErr := os.Stat(name)
	fromDir, dirErr := filepath.EvalSymlinks(c.manifestDir)
	if errors.Join(err, relErr, statErr, dirErr) != nil || !filepath.IsLocal(rel) || target != filepath.Join(fromDir, rel) {
		return ""
	}
	switch {
	case info.IsDir():
		return "./" + filepath.ToSlash(rel) + "/"
	case !info.Mode().IsRegular() || info.Size() > maxContent:
		return ""
	}
	return "./" + filepath.ToSlash(rel)
}

// asText returns an error for a content that is not text, or empty.
func asText(content []byte, err error) ([]byte, error) {
	switch {
	case err != nil:
		return nil, err
	case !printable(content):
		return nil, fmt.Errorf("it is not text")
	case len(content) == 0:
		return nil, fmt.Errorf("it is empty")
	}
	return content, nil
}

// readSmall returns the content of a file that is small enough for a manifest.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err == nil && len(content) > maxContent {
		err = fmt.Errorf("it is larger than 256 KiB")
	}
	return content, err
}

func printable(content []byte) bool {
	return utf8.Valid(content) && !strings.ContainsRune(string(content), 0)
}

// files converts the configs and secrets of one service.
type files struct{ *service }

func (s files) all() {
	for i, ref := range s.in.Configs {
		s.config("configs."+itoa(i), types.FileReferenceConfig(ref))
	}
	for i, ref := range s.in.Secrets {
		s.secretFile("secrets."+itoa(i), types.FileReferenceConfig(ref))
	}
}

func (s files) config(key string, ref types.FileReferenceConfig) {
	c := types.FileObjectConfig(s.project.Configs[ref.Source])
	if s.treeFile(key, "config "+ref.Source, c, ref, "/"+ref.Source) {
		return
	}
	target := cmp.Or(ref.Target, "/"+ref.Source)
	if c.File != "" && c.Content == "" && c.Environment == "" && !bool(c.External) {
		if from := s.beside(c.File); from != "" {
			s.out.Files = append(s.out.Files, &carav1.File{Path: target, From: from, Mode: s.fileMode(key, ref)})
			return
		}
	}
	content, err := asText(s.content(c))
	if err != nil {
		s.say(Refusal, key, "config %s: %v", ref.Source, err)
		return
	}
	s.out.Files = append(s.out.Files, &carav1.File{Path: target, Content: string(content), Mode: s.fileMode(key, ref)})
}

func (s files) secretFile(key string, ref types.FileReferenceConfig) {
	if s.treeFile(key, "secret "+ref.Source, types.FileObjectConfig(s.project.Secrets[ref.Source]), ref, "/run/secrets/"+ref.Source) {
		return
	}
	content, err := s.content(types.FileObjectConfig(s.project.Secrets[ref.Source]))
	if err != nil {
		s.say(Refusal, key, "secret %s: %v", ref.Source, err)
		return
	}
	target := cmp.Or(ref.Target, ref.Source)
	if !path.IsAbs(target) {
		target = path.Join("/run/secrets", target)
	}
	s.out.Files = append(s.out.Files, &carav1.File{
		Path: target, SecretKeyRef: s.secretKey(ref.Source, content), Mode: s.fileMode(key, ref),
	})
}

// content returns the content of a config or a secret.
func (s files) content(f types.FileObjectConfig) ([]byte, error) {
	switch {
	case bool(f.External):
		return nil, fmt.Errorf("it is external, so its content is not known")
	case f.Content != "":
		return []byte(f.Content), nil
	case f.Environment != "":
		value, ok := s.project.Environment[f.Environment]
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", f.Environment)
		}
		return []byte(value), nil
	case f.File != "":
		return readSmall(f.File)
	}
	return nil, fmt.Errorf("it has neither file, content nor environment")
}

func (s files) fileMode(key string, ref types.FileReferenceConfig) string {
	if ref.UID != "" || ref.GID != "" {
		s.say(Loss, key, "files belong to root: make the file readable with mode")
	}
	if ref.Mode == nil {
		return ""
	}
	return fmt.Sprintf("%04o", *ref.Mode)
}
