package cli

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

func TestParseTarget(t *testing.T) {
	for arg, want := range map[string]target{
		"shop":              {project: "shop"},
		"project/shop":      {project: "shop"},
		"p/shop":            {project: "shop"},
		"shop/web":          {"shop", "web"},
		"projects/shop/web": {"shop", "web"},
	} {
		if got, err := parseTarget(arg, ""); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", "/", "shop/", "/web", "project/", "shop/web/x", "project/shop/web/x"} {
		if got, err := parseTarget(arg, ""); err == nil {
			t.Errorf("%q is taken for %+v", arg, got)
		}
	}
	for arg, want := range map[string]target{"shop": {"shop", "db"}, "shop/db": {"shop", "db"}, "shop/web": {}} {
		if got, err := parseTarget(arg, "db"); (err == nil) != (want != target{}) || got != want {
			t.Errorf("%s --service db: %+v, %v; want %+v", arg, got, err, want)
		}
	}
}

// The short flag for the service is the same in all commands.
func TestServiceFlagIsTheSameEverywhere(t *testing.T) {
	commands := newRoot(&app{}).Commands()
	for _, name := range []string{"logs", "exec", "port-forward", "top", "restart"} {
		i := slices.IndexFunc(commands, func(c *cobra.Command) bool { return c.Name() == name })
		if f := commands[i].Flags().Lookup("service"); f == nil || f.Shorthand != "s" {
			t.Errorf("%s has not -s, --service: %+v", name, f)
		}
	}
}

func TestParseMapping(t *testing.T) {
	for arg, want := range map[string]mapping{
		"80": {80, 80}, "8080:80": {8080, 80}, "0:80": {0, 80}, ":80": {0, 80}, "65535": {65535, 65535},
	} {
		if got, err := parseMapping(arg); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", ":", "0", "8080:0", "8080:", "65536", "-1", "80:80:80", "http", "1:65536", "+1"} {
		if got, err := parseMapping(arg); err == nil {
			t.Errorf("%q is taken for %+v", arg, got)
		}
	}
}
