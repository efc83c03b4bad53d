package apiserver

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// declaring creates the source old, which adopts what others have created. The result applies a manifest as its reconciler does.
func (d *data) declaring(t *testing.T) (src *carav1.Source, loop grpc.ClientConnInterface, apply func(p *carav1.Project)) {
	t.Helper()
	src, err := carav1.NewSourceServiceClient(d.admin(t)).CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "old"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}, Adopt: api.AdoptAlways},
	}})
	if err != nil {
		t.Fatal(err)
	}
	loop, err = d.Client("reconciler")
	if err != nil {
		t.Fatal(err)
	}
	return src, loop, func(p *carav1.Project) {
		t.Helper()
		p.Metadata.Origin = &carav1.Origin{File: "shop.yaml", Line: 1, Revision: "1a2b3c4d5e6f"}
		resp, err := carav1.NewApplyServiceClient(loop).Apply(t.Context(), &carav1.ApplyRequest{Source: "old", Adopt: api.AdoptAlways, Objects: []*carav1.Object{api.Wrap(p)}})
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range resp.GetResults() {
			if problem := result.GetProblem(); problem != nil {
				t.Fatalf("the manifest is refused: %s", problem.GetDetail())
			}
		}
	}
}

// TestAdoptedProjectGetsItsData: git declares a project with data again, after a person has created one of that name without data.
func TestAdoptedProjectGetsItsData(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	_, loop, apply := d.declaring(t)
	apply(db(""))
	d.endsBy(t, loop, &carav1.DeleteProjectRequest{Name: "shop", Owner: "source/old", Reason: string(api.ReasonPruned), Force: true})
	d.becomes(t, "shop.db", api.VolumeRetained)
	d.create(t, web("shop"))
	apply(db(""))
	if v := d.volume(t, "shop.db"); d.shop(t).GetMetadata().GetOwner() != "source/old" || v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeInUse || v.GetStatus().GetOwner() != "source/old" {
		t.Errorf("the project of %s has %v", d.shop(t).GetMetadata().GetOwner(), v)
	}
}

// TestAdoptionLeavesOtherData: what the manifest of a source leaves out stays with the person whose project the source adopts.
func TestAdoptionLeavesOtherData(t *testing.T) {
	d := newData(t, "")
	have := d.volume(t, "shop.db").GetStatus().GetOwner()
	_, _, apply := d.declaring(t)
	apply(web("shop"))
	if v := d.volume(t, "shop.db"); v.GetStatus().GetState() != api.VolumeRetained || v.GetStatus().GetOwner() != have || have == "source/old" {
		t.Errorf("the data of %s is %v", have, v)
	}
}

// TestDataOfAnOrphan: a project whose source is deleted keeps its data. When it ends, its data belongs to nobody, and a person gets it.
func TestDataOfAnOrphan(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	src, loop, apply := d.declaring(t)
	apply(db(""))
	if owner := d.shop(t).GetMetadata().GetOwner(); owner != "source/old" {
		t.Fatalf("the project belongs to %q", owner)
	}
	if owner := d.volume(t, "shop.db").GetStatus().GetOwner(); owner != "source/old" {
		t.Errorf("the volume of the adopted project belongs to %q", owner)
	}
	if _, err := carav1.NewSourceServiceClient(d.admin(t)).DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := carav1.NewSourceServiceClient(loop).RemoveSource(t.Context(), &carav1.DeleteRequest{Name: "old", Uid: src.GetMetadata().GetUid()}); err != nil {
		t.Fatal(err)
	}
	if v := d.volume(t, "shop.db"); d.shop(t).GetMetadata().GetOwner() != "" || v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeInUse || v.GetStatus().GetOwner() != "" {
		t.Errorf("the orphan has %v", v)
	}
	d.ends(t)
	d.becomes(t, "shop.db", api.VolumeRetained)
	d.create(t, db(""))
	if v := d.volume(t, "shop.db"); v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeInUse {
		t.Errorf("the next project has %v", v)
	}
}
