package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// maxFile limits the size of one Compose file in bytes.
const maxFile = 1 << 20

// input is what the files say.
type input struct {
	project *types.Project
	model   map[string]any // the merged files, without the defaults of Compose
	files   []*source
	others  []*source // files of a source that these include or extend
	dir     string
	tree    Tree // nil for files on disk
	root    string
	// manifestDir is absolute, or empty.
	manifestDir string
}

func load(ctx context.Context, o Options) (*input, error) {
	logrus.SetOutput(io.Discard) // compose-go logs what the findings say with a position
	if err := o.directory(); err != nil {
		return nil, err
	}
	read := func(extra ...func(*loader.Options)) (*cli.ProjectOptions, error) {
		with := []cli.ProjectOptionsFn{
			cli.WithWorkingDirectory(o.Dir), cli.WithEnv(o.Environ), cli.WithEnvFiles(o.EnvFiles...), cli.WithDotEnv,
		}
		if o.tree == nil { // a variable may name files elsewhere
			with = append(with, cli.WithConfigFileEnv, cli.WithDefaultConfigPath)
		}
		with = append(with, cli.WithDefaultProfiles(o.Profiles...), cli.WithLoadOptions(append(extra, limitPorts)...))
		if o.Name != "" {
			with = append(with, cli.WithName(o.Name))
		}
		return cli.NewProjectOptions(o.Files, with...)
	}
	normal, err := read()
	if err != nil {
		return nil, err
	}
	in := &input{tree: o.tree, root: o.root, others: o.others}
	if o.ManifestDir != "" {
		if in.manifestDir, err = filepath.Abs(o.ManifestDir); err != nil {
			return nil, err
		}
	}
	for _, name := range normal.ConfigPaths {
		f, err := readSource(name, o)
		if err != nil {
			return nil, err
		}
		in.files = append(in.files, f)
	}
	asWritten, err := read(func(l *loader.Options) {
		l.SkipNormalization, l.SkipDefaultValues, l.SkipConsistencyCheck = true, true, true
		if l.Interpolate == nil { // while the files are read
			return
		}
		l.Interpolate.LookupValue = func(name string) (string, bool) { // LoadModel passes no variables on
			value, ok := normal.Environment[name]
			return value, ok
		}
	})
	if err != nil {
		return nil, err
	}
	if in.model, err = asWritten.LoadModel(ctx); err != nil {
		return nil, in.explain(err)
	}
	if err = limitWays(in.model); err != nil {
		return nil, in.explain(err)
	}
	if in.project, err = normal.LoadProject(ctx); err != nil {
		return nil, in.explain(err)
	}
	in.dir = in.project.WorkingDir
	return in, nil
}

// directory lets one directory stand for the Compose file in it, as the current directory does. Unlike Compose, it does not
// look above a directory that somebody has named.
func (o *Options) directory() error {
	for _, name := range o.Files {
		if info, err := os.Stat(name); err != nil || !info.IsDir() {
			continue
		}
		for _, file := range cli.DefaultFileNames {
			if _, err := os.Stat(filepath.Join(name, file)); err == nil && len(o.Files) == 1 {
				o.Files, o.Dir = nil, name
				return nil
			}
		}
		return fmt.Errorf("%s is a directory: name a Compose file, or one directory with a compose.yaml. A source with format: Compose runs directories of them", name)
	}
	return nil
}

// explain adds the place in the files to an error of the library. In a source, about does it, because included files are known there.
func (in *input) explain(err error) error {
	if in.tree != nil || len(in.files) == 0 {
		return err
	}
	main := in.files[0]
	f := about(err.Error(), in.files, nil, main.name)
	where := fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Key != "" {
		where += f.Key + ": "
	}
	if strings.Contains(err.Error(), "additional properties") && len(in.files) == 1 && len(main.keysOf("services")) == 0 {
		f.Message += ". A file of the first version of Compose lists its services at the top: write services: above them, and indent them"
	}
	return errors.New(where + f.Message)
}

func readSource(name string, o Options) (*source, error) {
	shown := name
	if o.root != "" {
		rel, err := filepath.Rel(o.root, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		shown = filepath.ToSlash(rel)
	} else if !filepath.IsAbs(name) || len(o.Files) == 0 { // a file with a default name is found by its absolute path
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, name); err == nil && filepath.IsLocal(rel) {
				shown = rel
			}
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, errors.Unwrap(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB: Compose files that people write are smaller", shown)
	}
	return newSource(shown, data)
}

func itoa(i int) string { return strconv.Itoa(i) }
