package step

import (
	"strconv"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ContainerSpec returns the complete spec of a service's container.
func (w *Want) ContainerSpec(name string, s *carav1.Service) engine.ContainerSpec {
	spec := engine.ContainerSpec{
		Name: name, Labels: w.containerLabels(s), Network: NetworkName(w.Project),
		Service: s, Volumes: map[string]engine.Source{},
	}
	for _, e := range s.GetEnv() {
		value := e.GetValue()
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

// Files returns the files to copy into a service's container before its first start.
func (w *Want) Files(s *carav1.Service) []engine.File {
	var out []engine.File
	for _, f := range s.GetFiles() {
		mode, err := strconv.ParseInt(f.GetMode(), 8, 32)
		if err != nil {
			mode = 0o444 // the server rejects such a mode
		}
		content := []byte(f.GetContent())
		if r := f.GetSecretKeyRef(); r != nil {
			content = w.Secrets[r.GetName()+"/"+r.GetKey()]
		}
		out = append(out, engine.File{Path: f.GetPath(), Root: api.MountOf(s.GetVolumeMounts(), f.GetPath()).GetMountPath(), Content: content, Mode: mode})
	}
	return out
}
