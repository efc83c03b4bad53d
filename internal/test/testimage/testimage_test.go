package testimage

import (
	"archive/tar"
	"errors"
	"io"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caravanserai/cara/internal/test/testneed"
)

func build(t *testing.T, ref string) v1.Image {
	t.Helper()
	found, err := Lookup(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := found[0].Build(t.Context())
	if errors.Is(err, ErrNoBusybox) {
		testneed.Missing(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digest(t *testing.T, image v1.Image) string {
	t.Helper()
	hash, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}

func TestBuildIsReproducibleAndVersionsDiffer(t *testing.T) {
	one, two := build(t, WebV1), build(t, WebV2)
	if a, b := digest(t, one), digest(t, build(t, WebV1)); a != b {
		t.Errorf("the same image twice: %s, %s", a, b)
	}
	if a, b := digest(t, one), digest(t, two); a == b {
		t.Errorf("two versions are one image: %s", a)
	}
	padded, err := Pad(one, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := digest(t, one), digest(t, padded); a == b {
		t.Error("padding changed nothing")
	}
}

func TestBusyboxHasItsApplets(t *testing.T) {
	layers, err := build(t, Busybox).Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v, want one", len(layers), err)
	}
	reader, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var names []string
	for archive := tar.NewReader(reader); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	for _, want := range []string{"bin/busybox", "bin/sh", "bin/wget", "etc/passwd", "tmp/"} {
		if !slices.Contains(names, want) {
			t.Errorf("the layer lacks %s", want)
		}
	}
}

func TestLookup(t *testing.T) {
	if all, err := Lookup(); err != nil || len(all) != len(All()) {
		t.Errorf("no reference gives %d of %d images, %v", len(all), len(All()), err)
	}
	if _, err := Lookup("nginx:latest"); err == nil {
		t.Error("an image that is no fixture was found")
	}
}
