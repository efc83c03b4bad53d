package testimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// layerFormat increases when the construction of layers and configs changes. It is part of Content.
const layerFormat = 1

const passwd = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"

// entry is one name in a layer. Times and owners are zero, so that the bytes are always the same.
type entry struct {
	name string
	dir  bool
	file string // path of the content
	text string // or the content itself
	link string // or the target of a symbolic link
	mode fs.FileMode
}

func layer(entries []entry) (v1.Layer, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, e := range entries {
		header, content, err := e.header()
		if err != nil {
			return nil, err
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write the layer: %w", err)
		}
		if _, err := archive.Write(content); err != nil {
			return nil, fmt.Errorf("write the layer: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	})
}

func (e entry) header() (*tar.Header, []byte, error) {
	header := &tar.Header{Name: e.name, Mode: int64(e.mode), Format: tar.FormatPAX}
	switch {
	case e.dir:
		header.Typeflag = tar.TypeDir
		if e.mode == 0 {
			header.Mode = 0o755
		}
		return header, nil, nil
	case e.link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
		return header, nil, nil
	}
	content := []byte(e.text)
	if e.file != "" {
		var err error
		if content, err = os.ReadFile(e.file); err != nil {
			return nil, nil, fmt.Errorf("read a file of the layer: %w", err)
		}
	}
	if e.mode == 0 {
		header.Mode = 0o644
	}
	header.Typeflag, header.Size = tar.TypeReg, int64(len(content))
	return header, content, nil
}
