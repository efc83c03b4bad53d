package testimage

import (
	"crypto/rand"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Pad adds a layer of random bytes to an image, so that a pull must fetch them.
func Pad(image v1.Image, bytes int64) (v1.Image, error) {
	noise := make([]byte, bytes)
	if _, err := rand.Read(noise); err != nil {
		return nil, fmt.Errorf("pad an image: %w", err)
	}
	extra, err := layer([]entry{{name: "padding", text: string(noise)}})
	if err != nil {
		return nil, fmt.Errorf("pad an image: %w", err)
	}
	padded, err := mutate.AppendLayers(image, extra)
	if err != nil {
		return nil, fmt.Errorf("pad an image: %w", err)
	}
	return padded, nil
}
