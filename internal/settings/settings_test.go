package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestPrecedence(t *testing.T) {
	tests := map[string]struct {
		args []string
		env  map[string]string
		file string
		want string // listen, cidrs, count
		err  string
	}{
		"defaults":                {want: "default [] 1"},
		"file":                    {file: "listen: f\ncount: 7\nallow-source-cidr: [a, b]\n", want: "f [a b] 7"},
		"environment beats file":  {env: map[string]string{"CARA_LISTEN": "e"}, file: "listen: f\n", want: "e [] 1"},
		"flag beats environment":  {args: []string{"--listen=x"}, env: map[string]string{"CARA_LISTEN": "e"}, want: "x [] 1"},
		"lists in environment":    {env: map[string]string{"CARA_ALLOW_SOURCE_CIDR": "a,b"}, want: "default [a b] 1"},
		"misspelt key":            {file: "lisen: f\n", err: `"lisen" is no setting of this program`},
		"wrong type in file":      {file: "count: many\n", err: "count: "},
		"wrong type in variable":  {env: map[string]string{"CARA_COUNT": "many"}, err: "environment variable CARA_COUNT"},
		"broken file":             {file: "listen: [\n", err: "config file "},
		"text with a space":       {file: "listen: a b\n", want: "a b [] 1"},
		"number as it is written": {file: "listen: 0010\n", want: "0010 [] 1"},
		"key in capitals":         {file: "Listen: f\n", want: "f [] 1"},
		"one value for a list":    {file: "allow-source-cidr: a\n", want: "default [a] 1"},
		"shared value":            {file: "listen: &x f\nallow-source-cidr: *x\n", want: "f [f] 1"},
		"no value":                {file: "listen:\n", want: " [] 1"},
		"empty file":              {file: "# nothing\n", want: "default [] 1"},
		"key given twice":         {file: "listen: a\nlisten: b\n", err: "already defined"},
		"settings below a key":    {file: "listen: {address: a}\n", err: "listen: has settings below it"},
		"no mapping":              {file: "- listen\n", err: "config file "},
		"config names itself":     {file: "config: other\n", err: `"config" is no setting`},
		"empty variable is unset": {env: map[string]string{"CARA_LISTEN": ""}, want: "default [] 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			listen := flags.String("listen", "default", "")
			cidrs := flags.StringSlice("allow-source-cidr", nil, "")
			count := flags.Int("count", 1, "")
			flags.String("config", "", "")
			if tt.file != "" {
				path := filepath.Join(t.TempDir(), "cara.yaml")
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
				tt.args = append(tt.args, "--config="+path)
			}
			if err := flags.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			err := Load(flags)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(*listen, " ", *cidrs, " ", *count); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
