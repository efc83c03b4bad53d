package testimage

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrNoBusybox means that the machine has no static busybox. Only the image busybox:local needs it.
var ErrNoBusybox = errors.New("no static busybox on this machine: apt-get install busybox-static")

func busyboxPath() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", ErrNoBusybox
	}
	file, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(libraries) > 0 {
		return "", fmt.Errorf("%w (%s is linked dynamically)", ErrNoBusybox, path)
	}
	return path, nil
}

func busyboxContent() (string, error) {
	path, err := busyboxPath()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	sum := sha256.Sum256(fmt.Appendf(text, "%d", layerFormat))
	return hex.EncodeToString(sum[:]), nil
}

// busyboxLayer has a link for each applet, so that commands have their usual names.
func busyboxLayer(ctx context.Context) (v1.Layer, error) {
	path, err := busyboxPath()
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of %s: %w", path, err)
	}
	entries := []entry{
		{name: "bin/", dir: true},
		{name: "bin/busybox", file: path, mode: 0o755},
		{name: "etc/", dir: true},
		{name: "etc/passwd", text: passwd},
		{name: "tmp/", dir: true, mode: 0o1777},
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			entries = append(entries, entry{name: "bin/" + applet, link: "busybox"})
		}
	}
	return layer(entries)
}
