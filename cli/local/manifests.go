// Package local reads what commands take from the disk of a person: manifests, and the files beside them that projects use. It
// reports every problem with its file and line.
package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// MaxInput limits what is read from one file. It is more than manifest.Parse accepts, so that Parse reports its own limit.
const MaxInput = 8 << 20

// Reader reads files, and standard input as -.
type Reader struct {
	In  io.Reader
	Err io.Writer // of problems and warnings
}

// Manifests reads the arguments of -f: files, directories (all manifests below), or - for standard input. It prints
// every problem. If there is any, it returns no manifests, since the rest may not be what the user wants. The files beside the
// manifests that projects use are read into files. Nil means that they do not matter.
func (r Reader) Manifests(paths []string, files Files) ([]proto.Message, error) {
	if len(paths) == 0 {
		return nil, errors.New("name the manifests with -f FILE, -f DIR or -f -")
	}
	docs, problems, err := r.parse(paths, files)
	if err != nil {
		return nil, err
	}
	docs, twice := manifest.Check(docs)
	problems = append(problems, twice...)
	if len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(r.Err, term.Line(manifest.Format(p)))
		}
		return nil, fmt.Errorf("nothing was done: %s in the manifests", term.Plural(len(problems), "problem"))
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("no manifests in %s", display(strings.Join(paths, ", ")))
	}
	objects := make([]proto.Message, len(docs))
	for i, d := range docs {
		objects[i] = d.Object
		for _, w := range d.Warnings {
			fmt.Fprintln(r.Err, "warning:", term.Line(manifest.Format(w)))
		}
	}
	return objects, nil
}

// parse parses files and the manifests in directories.
func (r Reader) parse(paths []string, local Files) (docs []manifest.Document, problems []*carav1.FileProblem, err error) {
	var skipped []*carav1.FileProblem
	for _, path := range paths {
		files, err := expand(path)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			data, err := r.File(file)
			if err != nil {
				return nil, nil, err
			}
			if looks, foreign := manifest.Foreign(display(file), data); foreign && file == path {
				problems = append(problems, &carav1.FileProblem{File: display(file), Message: foreignAdvice(looks)})
				continue
			} else if foreign { // a directory may hold files of other tools
				fmt.Fprintf(r.Err, "warning: %s is skipped: it looks like %s\n", term.Line(display(file)), term.Line(looks))
				skipped = append(skipped, &carav1.FileProblem{File: display(file), Message: foreignAdvice(looks)})
				continue
			}
			found, wrong := manifest.Parse(display(file), data, manifest.Limits{})
			docs, problems = append(docs, found...), append(problems, wrong...)
			for _, d := range found {
				if local != nil {
					problems = append(problems, local.fill(file, d)...)
				}
			}
		}
	}
	if len(docs) == 0 && len(problems) == 0 && len(skipped) > 0 {
		problems = skipped[:1] // only files of another tool, such as a Helm chart: the first says what to do
	}
	return docs, problems, nil
}

// foreignAdvice says what to do with a file of another tool that was given as a manifest.
func foreignAdvice(looks string) string {
	switch {
	case strings.Contains(looks, "Compose"):
		return "looks like " + looks + ", not a manifest of Cara: convert it with caractrl convert FILE"
	case strings.Contains(looks, "Nomad"):
		return "looks like " + looks + ", which Cara does not run: write a Project with each task under spec.services, and its ports as spec.ingress or spec.ports"
	case strings.Contains(looks, "SOPS"):
		return "looks like " + looks + ": run `sops decrypt FILE | caractrl apply -f -`, or declare it in a source with spec.decryption"
	case strings.Contains(looks, "Kubernetes"), strings.Contains(looks, "Helm"), strings.Contains(looks, "kustomization"):
		return "looks like " + looks + ", and Cara does not run Kubernetes objects: write a Project with each container under spec.services, and an Ingress as spec.ingress"
	}
	return "looks like " + looks + ", not a manifest of Cara: a manifest has apiVersion: caravanserai/v1 and a kind such as Project"
}

// display returns the name of a file in messages.
func display(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// File reads one file, or standard input, up to a little more than MaxInput.
func (r Reader) File(file string) ([]byte, error) {
	in := r.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read file: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, MaxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", display(file), err)
	}
	return data, nil
}

// expand lists the manifest files of a path, sorted by name.
func expand(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != path && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.Type().IsRegular() && manifest.IsManifest(entry.Name()):
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return files, nil
}
