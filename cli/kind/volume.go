package kind

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Volume is the kind Volume: a Managed volume, which outlives its project.
func Volume() Kind {
	return Kind{
		Name: api.KindVolume, Plural: "volumes", aliases: []string{"vol"},
		Columns: []string{"NAME", "STATE", "NODE", "PROJECT", "SIZE", "AGE"},
		wide:    []string{"RECLAIM", "OWNER", "UID", "MEASURED", "LAST BACKUP"},
		Row:     volumeRow, Describe: describeVolume,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			return messages(volumes(ctx, conn, f))
		},
		Get:   getter(carav1.NewVolumeServiceClient, carav1.VolumeServiceClient.GetVolume),
		Watch: watchVolumes,
	}
}

// VolumeStates are the states of a volume.
func VolumeStates() []string {
	return []string{api.VolumeInUse, api.VolumeRetained, api.VolumeLost, api.VolumeCopying, api.VolumeDeleting}
}

func volumes(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]*carav1.Volume, error) {
	l, err := carav1.NewVolumeServiceClient(conn).ListVolumes(ctx, &carav1.ListVolumesRequest{Project: f.Project, Node: f.Node, State: f.State})
	return l.GetItems(), err
}

func volumeRow(m proto.Message, now time.Time) []term.Cell {
	v := m.(*carav1.Volume)
	st := v.GetStatus()
	return []term.Cell{
		term.Text(v.GetMetadata().GetName()),
		volumeState(v),
		term.Text(st.GetNode()),
		term.Text(v.GetSpec().GetProject()),
		VolumeSize(v),
		term.Since(now, v.GetMetadata().GetCreationTimestamp()),
		term.Text(v.GetSpec().GetReclaim()), term.Text(st.GetOwner()), term.Text(v.GetMetadata().GetUid()),
		term.Ago(now, st.GetSizeTime()), term.Ago(now, st.GetLastBackup()),
	}
}

func volumeState(v *carav1.Volume) term.Cell {
	c := term.Text(v.GetStatus().GetState())
	switch v.GetStatus().GetState() {
	case api.VolumeInUse:
		c.Colour = term.Green
	case api.VolumeRetained:
		c.Colour = term.Yellow
	case api.VolumeLost:
		c.Colour = term.Red
	default:
		c.Colour = term.Faint
	}
	return c
}

// VolumeSize returns the size of a volume; a dash while it is not known.
func VolumeSize(v *carav1.Volume) term.Cell {
	if st := v.GetStatus(); st != nil && st.SizeBytes != nil {
		return Size(st.GetSizeBytes())
	}
	return term.Text("")
}

func describeVolume(_ context.Context, p Page, m proto.Message) error {
	v := m.(*carav1.Volume)
	st, spec := v.GetStatus(), v.GetSpec()
	p.meta(v.GetMetadata())
	p.Field("State", fmt.Sprintf("%s since %s", st.GetState(), term.Ago(p.Now, st.GetSince()).Text))
	p.Field("Message", st.GetMessage())
	p.Field("Project", spec.GetProject())
	p.Field("Owner", volumeOwner(v))
	p.Field("Reclaim", spec.GetReclaim())
	p.Field("Node", st.GetNode())
	p.Field("UID", v.GetMetadata().GetUid())
	if st.GetMade() {
		p.Field("Docker", "volume "+api.EngineVolume(spec.GetProject(), spec.GetName(), v.GetMetadata().GetUid()))
	}
	if st.GetSizeTime() != nil {
		p.Field("Size", fmt.Sprintf("%s, measured %s", VolumeSize(v).Text, term.Ago(p.Now, st.GetSizeTime()).Text))
	}
	if st.GetLastBackup() != nil {
		p.Field("Backup", fmt.Sprintf("data of %s, snapshot %s", term.Ago(p.Now, st.GetLastBackup()).Text, shortID(st.GetSnapshot())))
	}
	if from := st.GetRestoredFrom(); from.GetSnapshot() != "" {
		p.Field("Restored", fmt.Sprintf("from snapshot %s of volume %s, data of %s", shortID(from.GetSnapshot()), api.VolumeName(from.GetProject(), from.GetVolume()), term.Ago(p.Now, from.GetTime()).Text))
	}
	return nil
}

// volumeOwner returns the owner of a volume, and who gets the data of a volume that no project uses.
func volumeOwner(v *carav1.Volume) string {
	owner, project, name := v.GetStatus().GetOwner(), v.GetSpec().GetProject(), v.GetMetadata().GetName()
	text := cmp.Or(owner, "none")
	if st := v.GetStatus(); st.GetProjectUid() != "" || st.GetState() == api.VolumeDeleting || st.GetState() == api.VolumeCopying {
		return text
	}
	_, fromSource := api.SourceOf(owner)
	plain := api.VolumeName(project, v.GetSpec().GetName())
	switch {
	case v.GetStatus().GetMovedTo() != "":
		return fmt.Sprintf("%s; no project gets this old copy until somebody allows it: caractrl release volume %s", text, name)
	case strings.HasPrefix(owner, api.PrefixNode):
		return fmt.Sprintf("%s, which found it; no project gets the data until somebody allows it: caractrl release volume %s", text, name)
	case name != plain:
		return fmt.Sprintf("%s; the next project %s gets the data only if volume %s does not exist then", text, project, plain)
	case fromSource:
		return fmt.Sprintf("%s; the next project %s of this owner gets the data (caractrl release volume %s lets others have it)", text, project, name)
	}
	return fmt.Sprintf("%s; the next project %s gets the data, one of a source if its adopt policy allows it", text, project)
}

// projectVolumes shows the volumes of a project: those of its manifest, then those that left it and still have data.
func (p Page) projectVolumes(ctx context.Context, project *carav1.Project) error {
	name := project.GetMetadata().GetName()
	managed, err := volumes(ctx, p.Conn, Filter{Project: name})
	if err != nil {
		return err
	}
	byName := map[string]*carav1.Volume{}
	for _, v := range managed {
		byName[v.GetMetadata().GetName()] = v
	}
	var rows [][]term.Cell
	for _, declared := range project.GetSpec().GetVolumes() {
		typ, of := declared.GetType(), api.VolumeName(name, declared.GetName())
		switch typ {
		case "":
			typ = api.VolumeEphemeral
		case api.VolumeHost:
			typ += " " + declared.GetHost()
		case api.VolumeManaged:
			rows = append(rows, projectVolume(declared.GetName(), typ, byName[of]))
			delete(byName, of)
			continue
		}
		rows = append(rows, projectVolume(declared.GetName(), typ, nil))
	}
	for _, v := range managed {
		if _, left := byName[v.GetMetadata().GetName()]; left {
			rows = append(rows, projectVolume(v.GetMetadata().GetName()[len(name)+1:], api.VolumeManaged, v))
		}
	}
	table(p, "Volumes", []string{"NAME", "TYPE", "RECLAIM", "STATE", "NODE", "SIZE"}, rows, func(row []term.Cell) []term.Cell { return row })
	return nil
}

// projectVolume returns the row of a volume of a project. v is nil for a volume that is no object.
func projectVolume(name, typ string, v *carav1.Volume) []term.Cell {
	return []term.Cell{
		term.Text(name), term.Text(typ), term.Text(v.GetSpec().GetReclaim()), term.Text(v.GetStatus().GetState()),
		term.Text(v.GetStatus().GetNode()), VolumeSize(v),
	}
}

// nodeVolumes shows the host volumes that a node offers, and its Managed volumes.
func (p Page) nodeVolumes(ctx context.Context, n *carav1.Node) error {
	offered := n.GetStatus().GetInfo().GetHostVolumes()
	title := fmt.Sprintf("Host volumes (%d)", len(offered))
	table(p, title, []string{"NAME", "ACCESS", "PROJECTS"}, offered, func(h *carav1.HostVolume) []term.Cell {
		access := "read-write"
		if h.GetReadOnly() {
			access = "read-only"
		}
		return []term.Cell{term.Text(h.GetName()), term.Text(access), term.Text(limit(h.GetProjects(), "every project"))}
	})
	managed, err := volumes(ctx, p.Conn, Filter{Node: n.GetMetadata().GetName()})
	title = fmt.Sprintf("Volumes (%d)", len(managed))
	table(p, title, []string{"NAME", "STATE", "SIZE"}, managed, func(v *carav1.Volume) []term.Cell {
		return []term.Cell{term.Text(v.GetMetadata().GetName()), volumeState(v), VolumeSize(v)}
	})
	return err
}
