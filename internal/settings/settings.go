// Package settings sets the flags of Cara's three programs from the environment and from a YAML config file. It runs before
// all stages of a push. Only cmd and cli read settings, and no other package reads the environment.
//
// Flags take precedence over the environment, and the environment over the file. A setting `data-dir` is the flag
// --data-dir, the variable CARA_DATA_DIR and the key `data-dir` of the file. An unknown key is an error, because silently
// ignoring a misspelled setting would be worse.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// EnvVar returns the environment variable of a flag: CARA_DATA_DIR for data-dir. The Docker host has its usual name.
func EnvVar(flag string) string {
	if flag == "docker-host" {
		return "DOCKER_HOST"
	}
	return "CARA_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Load sets every flag that is not on the command line from the environment, or else from the config file in the flag
// `config`. The flags must be parsed already. In the environment, lists are separated by commas.
func Load(flags *pflag.FlagSet) error {
	var problem error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(EnvVar(f.Name))
		if !ok || value == "" || f.Changed || problem != nil || f.Name == "help" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			problem = fmt.Errorf("environment variable %s: %w", EnvVar(f.Name), err)
		}
	})
	if problem != nil {
		return problem
	}
	if file := flags.Lookup("config"); file != nil && file.Value.String() != "" {
		return loadFile(flags, file.Value.String())
	}
	return nil
}

func loadFile(flags *pflag.FlagSet, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	var settings map[string]yaml.Node
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return fmt.Errorf("config file %s: %w", file, err)
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		key := strings.ToLower(name)
		f := flags.Lookup(key)
		if f == nil || key == "config" || key == "help" {
			return fmt.Errorf("config file %s: %q is no setting of this program; see --help for those there are", file, name)
		}
		if f.Changed {
			continue
		}
		node := settings[name]
		value, err := valueOf(&node)
		if err == nil {
			err = flags.Set(key, value)
		}
		if err != nil {
			return fmt.Errorf("config file %s: %s: %w", file, name, err)
		}
	}
	return nil
}

// valueOf returns a setting as on the command line: a value unchanged, a list separated by commas.
func valueOf(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return valueOf(n.Alias)
	case n.Kind == yaml.SequenceNode:
		values := make([]string, len(n.Content))
		for i, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("is a list of more than plain values")
			}
			values[i] = item.Value
		}
		return strings.Join(values, ","), nil
	case n.Kind != yaml.ScalarNode:
		return "", errors.New("has settings below it; write one value, or a list of values")
	case n.Tag == "!!null":
		return "", nil
	}
	return n.Value, nil
}
