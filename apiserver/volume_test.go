package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// data is a cluster with a node n1 whose agent is connected, and a project shop that has the Managed volume db.
type data struct {
	*cluster
	one *fakeAgent
}

func db(reclaim string) *carav1.Project {
	p := web("shop")
	p.Spec.Volumes = []*carav1.ProjectVolume{{Name: "db", Type: api.VolumeManaged, Reclaim: reclaim}}
	p.Spec.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "db", MountPath: "/data"}}
	return p
}

// newData is a cluster in which shop runs on n1, and n1 has reported the volume.
func newData(t *testing.T, reclaim string) *data {
	t.Helper()
	c := newCluster(t, nil)
	d := &data{cluster: c, one: connectAgent(t, c.node(t, "n1"), "a")}
	d.one.synced()
	c.create(t, db(reclaim))
	testproblem.Want(t, c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleBind, NodeRef: "n1"}), codes.Unavailable, api.TitleUnavailable)
	d.has(t)
	eventually(t, "n1 has sent its inventory", func() bool {
		return c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleExplain, NodeRef: "n1", Message: "waits"}) == nil
	})
	c.bind(t, "shop", "n1")
	a := d.one.assignment()
	if u := api.VolumeUse(a.GetProject(), "db"); u.GetUid() == "" || u.GetMade() || u.GetNode() != "n1" {
		t.Fatalf("the agent is told %v", u)
	}
	d.has(t, d.volume(t, "shop.db").GetMetadata().GetUid())
	d.becomes(t, "shop.db", api.VolumeInUse)
	eventually(t, "the volume is made", func() bool { return d.volume(t, "shop.db").GetStatus().GetMade() })
	if err := d.one.report(a, api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	return d
}

// has sends an inventory of n1.
func (d *data) has(t *testing.T, uids ...string) {
	t.Helper()
	list := &carav1.VolumeInventory{}
	for _, uid := range uids {
		list.Volumes = append(list.Volumes, &carav1.HeldVolume{Uid: uid, Project: "shop", Name: "db", Owner: "source/platform", SizeBytes: proto.Int64(42)})
	}
	if err := d.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
}

func (d *data) volumes(t *testing.T) carav1.VolumeServiceClient {
	t.Helper()
	return carav1.NewVolumeServiceClient(d.admin(t))
}

func (d *data) volume(t *testing.T, name string) *carav1.Volume {
	t.Helper()
	v, err := d.volumes(t).GetVolume(t.Context(), &carav1.GetRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (d *data) becomes(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, "volume "+name+" is "+want, func() bool {
		v, err := d.volumes(t).GetVolume(t.Context(), &carav1.GetRequest{Name: name})
		return err == nil && v.GetStatus().GetState() == want
	})
}

func (d *data) vanishes(t *testing.T, name string) {
	t.Helper()
	eventually(t, "volume "+name+" is gone", func() bool {
		_, ok := state.Get[*carav1.Volume](d.db.Cache, name)
		return !ok
	})
}

// ends deletes shop by force, as the quickest way to the end of its record.
func (d *data) ends(t *testing.T) {
	t.Helper()
	d.endsBy(t, d.admin(t), &carav1.DeleteProjectRequest{Name: "shop", Force: true})
}

func (d *data) endsBy(t *testing.T, caller grpc.ClientConnInterface, req *carav1.DeleteProjectRequest) {
	t.Helper()
	if _, err := carav1.NewProjectServiceClient(caller).DeleteProject(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for asked := false; !asked; {
		asked = d.one.next().GetUnassigned() != nil
	}
}

func (d *data) put(t *testing.T, p *carav1.Project) {
	t.Helper()
	if _, err := carav1.NewProjectServiceClient(d.admin(t)).PutProject(t.Context(), &carav1.PutProjectRequest{Project: p}); err != nil {
		t.Fatal(err)
	}
}

// doomed returns the next request to delete a volume.
func (a *fakeAgent) doomed() *carav1.RemoveVolume {
	a.t.Helper()
	for {
		if m := a.next().GetRemoveVolume(); m != nil {
			return m
		}
	}
}

func (c *cluster) schedule(t *testing.T, req *carav1.ScheduleProjectRequest) error {
	t.Helper()
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	req.Name, req.ResourceVersion = "shop", c.shop(t).GetMetadata().GetResourceVersion()
	_, err = carav1.NewProjectServiceClient(loop).ScheduleProject(t.Context(), req)
	return err
}

// TestDataComesBack: a retained volume goes to the next project of the name, and keeps it on its node.
func TestDataComesBack(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	if size := d.volume(t, "shop.db").GetStatus().GetSizeBytes(); size != 42 {
		t.Errorf("the size is %d", size)
	}
	d.ends(t)
	d.becomes(t, "shop.db", api.VolumeRetained)
	d.create(t, db(""))
	v := d.volume(t, "shop.db")
	if v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeInUse || v.GetStatus().GetProjectUid() != d.shop(t).GetMetadata().GetUid() {
		t.Fatalf("the new project has %v", v)
	}
	if nodes := api.DataNodes(d.shop(t)); len(nodes) != 1 || nodes[0] != "n1" {
		t.Errorf("the data is on %v", nodes)
	}
	d.node(t, "n2")
	testproblem.Want(t, d.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleBind, NodeRef: "n2"}), codes.Aborted, api.TitleConflict)
	d.bind(t, "shop", "n1")
	if u := api.VolumeUse(d.one.assignment().GetProject(), "db"); u.GetUid() != uid || !u.GetMade() {
		t.Errorf("the agent is told %v", u)
	}
}

// TestReclaimOfTheNewestManifest: only the newest manifest says whether data is deleted with its project.
func TestReclaimOfTheNewestManifest(t *testing.T) {
	for name, test := range map[string]struct{ first, then, want string }{
		"first Delete, then Retain": {api.ReclaimDelete, api.ReclaimRetain, api.VolumeRetained},
		"first Retain, then Delete": {api.ReclaimRetain, api.ReclaimDelete, api.VolumeDeleting},
	} {
		t.Run(name, func(t *testing.T) {
			d := newData(t, test.first)
			generation := d.shop(t).GetStatus().GetPhase()
			d.put(t, db(test.then))
			if phase := d.shop(t).GetStatus().GetPhase(); phase != generation {
				t.Errorf("a change of reclaim alone made the project %s", phase)
			}
			d.ends(t)
			d.becomes(t, "shop.db", test.want)
		})
	}
}

// TestDeletedDataIsGoneWhenItsNodeSaysSo: the agent is asked, again on each connection, until an inventory lacks the volume.
func TestDeletedDataIsGoneWhenItsNodeSaysSo(t *testing.T) {
	d := newData(t, api.ReclaimDelete)
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	d.ends(t)
	if m := d.one.doomed(); m.GetUid() != uid || m.GetProject() != "shop" || m.GetName() != "db" {
		t.Errorf("asked to delete %v", m)
	}
	d.has(t, uid)
	d.one = connectAgent(t, d.one.conn, "b")
	if m := d.one.doomed(); m.GetUid() != uid {
		t.Errorf("asked again to delete %v", m)
	}
	d.becomes(t, "shop.db", api.VolumeDeleting)
	d.create(t, db("")) // does not wait for the old data, and does not get it
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() == uid || v.GetStatus().GetMade() {
		t.Errorf("the new project has %v", v)
	}
	d.has(t)
	d.vanishes(t, "shop.db."+uid[:8])
}

// TestUpdateNeverDeletesData: a volume that leaves the manifest is retained, whatever its reclaim says.
func TestUpdateNeverDeletesData(t *testing.T) {
	d := newData(t, api.ReclaimDelete)
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	renamed := db(api.ReclaimDelete)
	renamed.Spec.Volumes[0].Name, renamed.Spec.Services[0].VolumeMounts[0].Name = "files", "files"
	d.put(t, renamed)
	d.becomes(t, "shop.db", api.VolumeRetained)
	if v := d.volume(t, "shop.files"); v.GetStatus().GetState() != api.VolumeInUse || v.GetStatus().GetMade() {
		t.Errorf("the new volume is %v", v)
	}
	d.put(t, db(api.ReclaimDelete))
	d.becomes(t, "shop.db", api.VolumeInUse)
	if got := d.volume(t, "shop.db").GetMetadata().GetUid(); got != uid {
		t.Errorf("its data is %s, want %s", got, uid)
	}
}

// TestVolumeThatAnUpdateAdds is on the node of its project, so that the node's report is about this volume and no other.
func TestVolumeThatAnUpdateAdds(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	more := db("")
	more.Spec.Volumes = append(more.Spec.Volumes, &carav1.ProjectVolume{Name: "files", Type: api.VolumeManaged})
	d.put(t, more)
	files := d.volume(t, "shop.files")
	if node := files.GetStatus().GetNode(); node != "n1" {
		t.Errorf("the new volume is on node %q", node)
	}
	list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{
		{Uid: uid, Project: "shop", Name: "db"}, {Uid: files.GetMetadata().GetUid(), Project: "shop", Name: "files"},
	}}
	if err := d.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new volume is made", func() bool { return api.VolumeUse(d.shop(t), "files").GetMade() })
	all, err := d.volumes(t).ListVolumes(t.Context(), &carav1.ListVolumesRequest{})
	if err != nil || len(all.GetItems()) != 2 {
		t.Errorf("the volumes are %v (%v), want two", all.GetItems(), err)
	}
}

// TestDataOfAnotherOwner is not given to a project, until somebody releases it.
func TestDataOfAnotherOwner(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	d.ends(t)
	_, err := d.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: "shop.db"})
	if err != nil {
		t.Fatal(err)
	}
	d.one.doomed()
	d.has(t)
	d.vanishes(t, "shop.db")
	d.has(t, uid) // as after a restore of the server from an older backup: the label says that a source had it
	d.becomes(t, "shop.db", api.VolumeRetained)
	_, err = carav1.NewProjectServiceClient(d.admin(t)).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: db("")})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleOwned)
	if _, ok := state.Get[*carav1.Project](d.db.Cache, "shop"); ok {
		t.Error("the project was created")
	}
	if _, err := d.volumes(t).ReleaseVolume(t.Context(), &carav1.GetRequest{Name: "shop.db"}); err != nil {
		t.Fatal(err)
	}
	d.create(t, db(""))
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeInUse || !v.GetStatus().GetMade() {
		t.Errorf("the new project has %v", v)
	}
}

// TestLostData: a volume that its node no longer has is Lost, until it is there again or somebody wants an empty one.
func TestLostData(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	_, err := d.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: "shop.db"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	_, err = d.volumes(t).RecreateVolume(t.Context(), &carav1.GetRequest{Name: "shop.db"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	d.has(t)
	d.becomes(t, "shop.db", api.VolumeLost)
	d.has(t, uid)
	d.becomes(t, "shop.db", api.VolumeInUse)
	d.has(t)
	d.becomes(t, "shop.db", api.VolumeLost)
	v, err := d.volumes(t).RecreateVolume(t.Context(), &carav1.GetRequest{Name: "shop.db"})
	if err != nil {
		t.Fatal(err)
	}
	if v.GetMetadata().GetUid() == uid || v.GetStatus().GetState() != api.VolumeInUse || v.GetStatus().GetMade() {
		t.Errorf("recreated as %v", v)
	}
	if u := api.VolumeUse(d.one.assignment().GetProject(), "db"); u.GetUid() != v.GetMetadata().GetUid() || u.GetMade() {
		t.Errorf("the agent is told %v", u)
	}
}

// TestDataOfADeletedNode is Lost, and back when the node joins again.
func TestDataOfADeletedNode(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	d.ends(t)
	if _, err := carav1.NewNodeServiceClient(d.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	said, err := carav1.NewEventServiceClient(d.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindNode, Name: "n1", NewestFirst: true, Limit: 1})
	if err != nil || len(said.GetItems()) != 1 || !strings.Contains(said.GetItems()[0].GetMessage(), "; the data of 1 volume is Lost until its machine joins again") {
		t.Errorf("the event says %v, %v", said, err)
	}
	d.becomes(t, "shop.db", api.VolumeLost)
	list, err := d.volumes(t).ListVolumes(t.Context(), &carav1.ListVolumesRequest{State: api.VolumeLost, Project: "shop"})
	if err != nil || len(list.GetItems()) != 1 || list.GetItems()[0].GetStatus().GetState() != api.VolumeLost {
		t.Errorf("lost are %v, %v", list, err)
	}
	d.one = connectAgent(t, d.node(t, "n1"), "c")
	d.has(t, uid)
	d.becomes(t, "shop.db", api.VolumeRetained)

	// A node that is deleted while it should delete the volume never confirms it.
	remove := func() {
		t.Helper()
		if _, err := d.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: "shop.db"}); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if _, err := carav1.NewNodeServiceClient(d.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	remove()
	d.vanishes(t, "shop.db")
}

// TestVolumeWithoutDataMayMove: what a node never reported starts anew elsewhere, with a new uid.
func TestVolumeWithoutDataMayMove(t *testing.T) {
	c := newCluster(t, nil)
	d := &data{cluster: c}
	c.node(t, "n1")
	c.node(t, "n2")
	c.create(t, db(""))
	c.bind(t, "shop", "n1")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	if err := c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: "n2", Message: "n1 is lost"}); err != nil {
		t.Fatal(err)
	}
	v := d.volume(t, "shop.db")
	if v.GetMetadata().GetUid() == uid || v.GetStatus().GetNode() != "n2" || api.VolumeUse(c.shop(t), "db").GetUid() != v.GetMetadata().GetUid() {
		t.Errorf("it moved as %v; the project uses %v", v, c.shop(t).GetStatus().GetVolumes())
	}
}

// TestVolumeOfAProjectWithoutANode leaves nothing behind.
func TestVolumeOfAProjectWithoutANode(t *testing.T) {
	c := newCluster(t, nil)
	d := &data{cluster: c}
	c.create(t, db(""))
	if _, err := carav1.NewProjectServiceClient(c.admin(t)).DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	d.vanishes(t, "shop.db")
}

// TestFoundDataGoesToAProjectThatWaits: a server that was restored from an older backup hears of the data after a source has
// declared the project again.
func TestFoundDataGoesToAProjectThatWaits(t *testing.T) {
	for owner, given := range map[string]bool{"user/admin": true, "source/other": false} {
		t.Run(owner, func(t *testing.T) {
			c := newCluster(t, nil)
			d := &data{cluster: c, one: connectAgent(t, c.node(t, "n1"), "a")}
			d.one.synced()
			c.create(t, db(""))
			fresh := d.volume(t, "shop.db").GetMetadata().GetUid()
			list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{{Uid: "12345678-old", Project: "shop", Name: "db", Owner: owner}}}
			if err := d.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
				t.Fatal(err)
			}
			want, aside := "12345678-old", ""
			if !given {
				want, aside = fresh, "shop.db.12345678"
			}
			eventually(t, "the data is known", func() bool {
				v, _ := d.volumes(t).GetVolume(t.Context(), &carav1.GetRequest{Name: max(aside, "shop.db")})
				return v.GetStatus().GetMade()
			})
			if got := d.volume(t, "shop.db").GetMetadata().GetUid(); got != want || api.VolumeUse(c.shop(t), "db").GetUid() != want {
				t.Errorf("the project has %s and uses %v, want %s", got, c.shop(t).GetStatus().GetVolumes(), want)
			}
			c.bind(t, "shop", "n1")
		})
	}
}

// TestNewerDataOfARestoredServer: the restored server remembers data that the node has deleted since, and the node has newer
// data of the project.
func TestNewerDataOfARestoredServer(t *testing.T) {
	d := newData(t, "")
	list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{{Uid: "12345678-new", Project: "shop", Name: "db", Owner: "user/admin"}}}
	if err := d.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
	if u := api.VolumeUse(d.one.assignment().GetProject(), "db"); u.GetUid() != "12345678-new" || !u.GetMade() || u.GetNode() != "n1" {
		t.Errorf("the agent is told %v", u)
	}
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() != "12345678-new" || v.GetStatus().GetState() != api.VolumeInUse {
		t.Errorf("the volume is %v", v)
	}
}

// TestVolumeMadeTooLate: a node makes a volume just before its project moves away, and reports it afterwards. It is kept, and it
// is in nobody's way when the newer data is deleted.
func TestVolumeMadeTooLate(t *testing.T) {
	now := newClock()
	c := newCluster(t, func(cfg *Config) { cfg.Now = now.now })
	d := &data{cluster: c, one: connectAgent(t, c.node(t, "n1"), "a")}
	c.node(t, "n2")
	d.one.synced()
	c.create(t, db(api.ReclaimDelete))
	now.step(time.Hour)
	c.bind(t, "shop", "n1")
	late := d.volume(t, "shop.db").GetMetadata().GetUid()
	if err := c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: "n2"}); err != nil {
		t.Fatal(err)
	}
	d.has(t, late)
	aside := api.AsideName("shop", "db", late)
	d.becomes(t, aside, api.VolumeRetained)
	if v := d.volume(t, aside); v.GetStatus().GetMovedTo() != "n2" || v.GetStatus().GetOwner() != "node/n1" {
		t.Errorf("it is %v", v)
	}
	d.ends(t)
	if _, err := d.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: "shop.db"}); err != nil && !api.IsNotFound(err) {
		t.Fatal(err)
	}
	d.create(t, db(""))
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() == late {
		t.Errorf("the next project has %v", v)
	}
	d.becomes(t, aside, api.VolumeRetained)
}

// TestPlantedVolume: data that a node has without the server having made it goes to nobody by its name, until an
// administrator releases it.
func TestPlantedVolume(t *testing.T) {
	now := newClock()
	c := newCluster(t, func(cfg *Config) { cfg.Now = now.now })
	d := &data{cluster: c, one: connectAgent(t, c.node(t, "n1"), "a")}
	d.one.synced()
	now.step(time.Hour)
	d.has(t, "12345678-planted")
	d.becomes(t, "shop.db.12345678", api.VolumeRetained)
	_, err := carav1.NewProjectServiceClient(d.admin(t)).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: db("")})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleOwned)
	if _, err := d.volumes(t).ReleaseVolume(t.Context(), &carav1.GetRequest{Name: "shop.db.12345678"}); err != nil {
		t.Fatal(err)
	}
	d.create(t, db(""))
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() != "12345678-planted" || v.GetStatus().GetState() != api.VolumeInUse {
		t.Errorf("the project has %v", v)
	}
	d.vanishes(t, "shop.db.12345678")
}
