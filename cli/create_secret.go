package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type secretOptions struct {
	literals []string
	files    []string
	typ      string
}

func (a *app) createSecretCommand() *cobra.Command {
	o := secretOptions{}
	cmd := &cobra.Command{
		Use: "secret NAME --from-file KEY=FILE...", Short: "Create or replace a secret", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.createSecret(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.literals, "from-literal", nil, "KEY=VALUE (shells remember what is typed: a file is better)")
	f.StringArrayVar(&o.files, "from-file", nil, "KEY=FILE, or FILE whose name is the key; - reads standard input")
	f.StringVar(&o.typ, "type", "", "Opaque (default) or registry (keys server, username, password)")
	offer(cmd, "type", cobra.FixedCompletions([]string{api.SecretOpaque, api.SecretRegistry}, noFiles))
	return cmd
}

func (a *app) createSecret(ctx context.Context, name string, o secretOptions) error {
	data, err := a.secretData(o)
	if err != nil {
		return err
	}
	s := &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: name}, Type: o.typ, Data: data,
	}
	refused := false
	err = a.applyAll(ctx, []proto.Message{s}, &carav1.ApplyRequest{}, func(r *carav1.ApplyResult) {
		refused = r.Action == api.ApplyRefused
		a.printResult(r, false)
	})
	if err == nil && refused {
		return Exit{Code: 1}
	}
	return err
}

func (a *app) secretData(o secretOptions) (map[string][]byte, error) {
	data := map[string][]byte{}
	put := func(key string, value []byte) error {
		if _, twice := data[key]; twice || key == "" {
			return fmt.Errorf("key %q is given twice, or empty: each value needs a key of its own", key)
		}
		data[key] = value
		return nil
	}
	for _, l := range o.literals {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return nil, errors.New("--from-literal wants KEY=VALUE")
		}
		if err := put(key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, f := range o.files {
		key, path, ok := strings.Cut(f, "=")
		if !ok {
			key, path = filepath.Base(f), f
		}
		value, err := a.readFile(path)
		if err != nil {
			return nil, err
		}
		if err := put(key, value); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		return nil, errors.New("say what to keep with --from-file KEY=FILE")
	}
	return data, nil
}
