// Package access stores how a user's program reaches a server: the address, the token and the certificate authority, in a
// file that only the user can read. cara-server writes it at the first start and caractrl reads it, so that the first
// command needs no flags. It has no part in the processing of a push.
package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Context is the access of one user to one server.
type Context struct {
	// Server is a URL: `https://host:port`, or `http://` on loopback. Several servers of one cluster are separated by commas.
	Server string `json:"server"`
	// Token is the user's token. TokenFile, if set, is a file that contains it.
	Token     string `json:"token,omitempty"`
	TokenFile string `json:"tokenFile,omitempty"`
	// CA is the trusted certificate authority in PEM. The default is the system's.
	CA string `json:"ca,omitempty"`
	// Login is true if the token is that of a session that caractrl login has begun. Without a token, the user has logged out.
	Login bool `json:"login,omitempty"`
}

// Contexts is the content of the file.
type Contexts struct {
	// Current is the name of the context in use.
	Current string `json:"current"`
	// Contexts by name.
	Contexts map[string]Context `json:"contexts"`
}

// File returns the file of the contexts: `cara/contexts.json` in the user's configuration directory.
func File() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the user's configuration directory: %w", err)
	}
	return filepath.Join(dir, "cara", "contexts.json"), nil
}

// Load reads the contexts. A missing file has none.
func Load(file string) (Contexts, error) {
	c := Contexts{Contexts: map[string]Context{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read contexts: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read contexts: %s is not what caractrl wrote (%w): mend it or remove it", file, err)
	}
	if c.Contexts == nil {
		c.Contexts = map[string]Context{}
	}
	return c, nil
}

// Put stores a context under a name. It becomes the current one only if no current context exists, so that storing a
// context never changes the cluster of the user's next command. It returns the name of the current context.
func Put(file, name string, ctx Context) (current string, err error) {
	c, err := Load(file)
	if err != nil {
		return "", err
	}
	c.Contexts[name] = ctx
	if _, ok := c.Contexts[c.Current]; !ok {
		c.Current = name
	}
	return c.Current, save(file, c)
}

// Remove removes a context. If it was the current one, no context is current afterwards.
func Remove(file, name string) error {
	return change(file, name, func(c *Contexts) {
		delete(c.Contexts, name)
		if c.Current == name {
			c.Current = ""
		}
	})
}

// Use makes a context the current one.
func Use(file, name string) error {
	return change(file, name, func(c *Contexts) { c.Current = name })
}

// change changes the file, which must have the context.
func change(file, name string, do func(*Contexts)) error {
	c, err := Load(file)
	if err != nil {
		return err
	}
	if _, ok := c.Contexts[name]; !ok {
		return fmt.Errorf("there is no context %q in %s; caractrl context lists them", name, file)
	}
	do(&c)
	return save(file, c)
}

func save(file string, c Contexts) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	if err := renameio.WriteFile(file, append(data, '\n'), 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return nil
}
