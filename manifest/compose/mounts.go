package compose

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// mounts converts the volumes of one service:
//
//   - A named volume and a volume without a name become Managed volumes.
//   - A file beside the Compose file becomes one of the service's files. So do the files of a directory that is mounted
//     read-only.
//   - Any other directory beside the Compose file becomes a Managed volume.
//   - A path elsewhere on the machine becomes a Host volume.
type mounts struct{ *service }

func (s mounts) all() {
	for _, t := range s.in.Tmpfs {
		s.out.Tmpfs = append(s.out.Tmpfs, t)
	}
	for i, v := range s.in.Volumes {
		key := "volumes." + itoa(i)
		switch v.Type {
		case types.VolumeTypeVolume:
			s.namedVolume(key, v)
		case types.VolumeTypeBind:
			s.bind(key, v)
		case types.VolumeTypeTmpfs:
			s.tmpfs(v)
		default:
			s.say(Refusal, key, "a volume of type %s has no equivalent", v.Type)
		}
	}
}

func (s mounts) tmpfs(v types.ServiceVolumeConfig) {
	at := v.Target
	if v.Tmpfs != nil && v.Tmpfs.Size > 0 {
		at += fmt.Sprintf(":size=%d", v.Tmpfs.Size)
	}
	s.out.Tmpfs = append(s.out.Tmpfs, at)
}

func (s mounts) namedVolume(key string, v types.ServiceVolumeConfig) {
	if v.Volume != nil && v.Volume.Subpath != "" {
		s.say(Refusal, key, "a part of a volume cannot be mounted: use a volume of its own")
		return
	}
	if v.Source == "" {
		name := s.volumes.name(fmt.Sprintf("volume of %s at %s", s.in.Name, v.Target), s.out.GetName()+"-"+filepath.Base(v.Target))
		s.say(Note, key, "a volume without a name becomes the volume %s", name)
		s.mount(&carav1.ProjectVolume{Name: name, Type: api.VolumeManaged}, v)
		return
	}
	s.mount(&carav1.ProjectVolume{Name: s.volumes.name(volumeKey(v.Source), v.Source), Type: api.VolumeManaged}, v)
}

// mount adds a mount, and the volume unless another service has added it.
func (s mounts) mount(volume *carav1.ProjectVolume, v types.ServiceVolumeConfig) {
	spec := s.to.GetSpec()
	if !slices.ContainsFunc(spec.GetVolumes(), func(o *carav1.ProjectVolume) bool { return o.GetName() == volume.GetName() }) {
		spec.Volumes = append(spec.Volumes, volume)
	}
	s.out.VolumeMounts = append(s.out.VolumeMounts, &carav1.VolumeMount{Name: volume.GetName(), MountPath: v.Target, ReadOnly: v.ReadOnly})
}

func (s mounts) bind(key string, v types.ServiceVolumeConfig) {
	if s.tree != nil {
		if name, ok := s.inTree(v.Source); ok {
			s.treePath(key, name, v)
		} else {
			s.hostPath(key, v)
		}
		return
	}
	inside, err := filepath.Rel(s.dir, v.Source)
	if err != nil || !filepath.IsLocal(inside) {
		s.hostPath(key, v)
		return
	}
	shown := "./" + inside
	info, err := os.Stat(v.Source)
	switch {
	case err != nil && filepath.Ext(inside) != "":
		s.say(Refusal, key, "%s does not exist", shown)
	case err == nil && info.Mode().IsRegular():
		s.oneFile(key, shown, v)
	case err == nil && info.IsDir() && v.ReadOnly:
		s.directory(key, shown, v)
	case err == nil && !info.IsDir():
		s.say(Refusal, key, "%s is neither a file nor a directory", shown)
	default:
		s.dataDirectory(key, shown, v)
	}
}

// dataDirectory makes a directory that containers write to a Managed volume.
func (s mounts) dataDirectory(key, shown string, v types.ServiceVolumeConfig) {
	path := filepath.Clean(shown)
	if path == "." || dnsLabel(filepath.Base(path)) == "" {
		path = s.out.GetName() + "-data"
	}
	name := s.volumes.name(filepath.Clean(v.Source), path)
	s.mount(&carav1.ProjectVolume{Name: name, Type: api.VolumeManaged}, v)
	if n := s.entriesOf(v.Source); n > 0 {
		s.say(Loss, key, "%s becomes the volume %s, which is empty at first: copy what %s has into it. If it is configuration that containers only read, mount it with :ro", shown, name, shown)
		return
	}
	s.say(Note, key, "%s becomes the volume %s", shown, name)
}

// hostPath converts a path of the machine.
func (s mounts) hostPath(key string, v types.ServiceVolumeConfig) {
	path := filepath.Clean(v.Source)
	switch {
	case path == "/etc/localtime" || path == "/etc/timezone":
		if tz := s.in.Environment["TZ"]; tz != nil && *tz != "" {
			s.say(Note, key, "%s of the machine is not mounted: the service has the variable TZ", path)
			return
		}
		s.say(Loss, key, "%s of the machine is not mounted: set the variable TZ", path)
		return
	case s.tree != nil && under(path, filepath.Dir(s.root)):
		s.say(Refusal, key, "the path leaves the source")
		return
	case path == "/" || slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(dir string) bool { return under(path, dir) }):
		s.say(Refusal, key, "%s: containers have no access to the machine. Run such a program on the machine itself", path)
		return
	}
	if info, err := os.Stat(path); s.tree == nil && err == nil && info.Mode().IsRegular() {
		s.say(Refusal, key, "%s is a file outside of the directory of the Compose file: copy it there", path)
		return
	}
	name := s.volumes.name(path, strings.TrimSuffix(path, ".sock"))
	s.mount(&carav1.ProjectVolume{Name: name, Type: api.VolumeHost, Host: name}, v)
	s.say(Note, key, "%s becomes the host volume %s: a node has to offer it (cara-agent --host-volume %s=%s)", path, name, name, path)
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// topLevelVolumes checks the drivers of the volumes in use.
func (c *converter) topLevelVolumes() {
	for name, v := range c.project.Volumes {
		if v.Driver != "" && v.Driver != "local" {
			c.say(Refusal, "volumes."+name+".driver", "the driver "+v.Driver+" has no equivalent: mount the storage on the node and offer it as a host volume (cara-agent --host-volume)")
		}
	}
}

// directory makes the files of a read-only directory files of the service.
func (s mounts) directory(key, shown string, v types.ServiceVolumeConfig) {
	var names []string
	from := s.beside(v.Source)
	err := filepath.WalkDir(v.Source, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
			if d.Type()&fs.ModeSymlink != 0 {
				from = ""
			}
		}
		if len(names) > maxFiles {
			return fmt.Errorf("it has more than %d files", maxFiles)
		}
		return err
	})
	if err != nil {
		s.say(Refusal, key, "%s cannot become files of the service: %v", shown, err)
		return
	}
	if from != "" {
		s.out.Files = append(s.out.Files, &carav1.File{Path: v.Target, From: from})
		return
	}
	for _, name := range names {
		rel, _ := filepath.Rel(v.Source, name) // WalkDir makes the names from it
		one := v
		one.Source, one.Target = name, filepath.Join(v.Target, rel)
		s.oneFile(key, filepath.Join(shown, rel), one)
	}
}
