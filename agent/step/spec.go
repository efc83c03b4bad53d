package step

import (
	"slices"
	"strconv"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ContainerSpec returns the complete spec of a service's container.
func (w *Want) ContainerSpec(name string, s *carav1.Service) engine.ContainerSpec {
	spec := engine.ContainerSpec{
		Name: name, Labels: w.containerLabels(s), Network: NetworkName(w.Project),
		Service: s, Volumes: map[string]engine.Source{},
	}
	for _, e := range s.GetEnv() {
		value := syntax.ExpandSecrets(e.GetValue(), e.GetSecretVars(), w.Secrets)
		if r := e.GetValueFrom().GetSecretKeyRef(); r != nil {
			value = string(w.Secrets[r.GetName()+"/"+r.GetKey()])
		}
		spec.Env = append(spec.Env, e.GetName()+"="+value)
	}
	for _, m := range s.GetVolumeMounts() {
		spec.Volumes[m.GetName()] = w.source(m.GetName())
	}
	return spec
}

// Files returns the files to copy into a service's container before its first start. read returns the content of a file of
// the source by its digest.
func (w *Want) Files(s *carav1.Service, read func(digest string) ([]byte, error)) ([]engine.File, error) {
	var out []engine.File
	add := func(path, mode string, content []byte) {
		out = append(out, engine.File{Path: path, Root: api.MountOf(s.GetVolumeMounts(), path).GetMountPath(), Content: content, Mode: modeOf(mode)})
	}
	for _, f := range s.GetFiles() {
		switch r := f.GetSecretKeyRef(); {
		case f.GetFrom() != "" || len(f.GetEntries()) > 0:
			for _, e := range f.GetEntries() {
				content, err := read(e.GetDigest())
				if err != nil {
					return nil, err
				}
				add(api.EntryPath(f, e), api.EntryMode(f, e), content)
			}
		case r != nil:
			add(f.GetPath(), f.GetMode(), w.Secrets[r.GetName()+"/"+r.GetKey()])
		default:
			add(f.GetPath(), f.GetMode(), []byte(syntax.ExpandSecrets(f.GetContent(), f.GetSecretVars(), w.Secrets)))
		}
	}
	return out, nil
}

func modeOf(octal string) int64 {
	mode, err := strconv.ParseInt(octal, 8, 32)
	if err != nil {
		return 0o444 // the server rejects such a mode
	}
	return mode
}

// unfetched reports whether a service needs files that are not on this node.
func (s *view) unfetched(svc *carav1.Service) bool {
	return slices.ContainsFunc(api.ServiceBlobs(svc), func(digest string) bool { return s.h.Unfetched[digest] })
}
