package apiserver

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestDataOfAnOrphan: a project whose source is deleted keeps its data. When it ends, its data belongs to nobody, and a person gets it.
func TestDataOfAnOrphan(t *testing.T) {
	d := newData(t, "")
	uid := d.volume(t, "shop.db").GetMetadata().GetUid()
	sources := carav1.NewSourceServiceClient(d.admin(t))
	src, err := sources.CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "old"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}, Adopt: "Always"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	loop, err := d.Client("reconciler")
	if err != nil {
		t.Fatal(err)
	}
	p := db("")
	p.Metadata.Origin = &carav1.Origin{File: "shop.yaml", Line: 1, Revision: "1a2b3c4d5e6f"}
	if _, err := carav1.NewApplyServiceClient(loop).Apply(t.Context(), &carav1.ApplyRequest{Source: "old", Adopt: "Always", Objects: []*carav1.Object{api.Wrap(p)}}); err != nil {
		t.Fatal(err)
	}
	if owner := d.shop(t).GetMetadata().GetOwner(); owner != "source/old" {
		t.Fatalf("the project belongs to %q", owner)
	}
	if owner := d.volume(t, "shop.db").GetStatus().GetOwner(); owner != "source/old" {
		t.Errorf("the volume of the adopted project belongs to %q", owner)
	}
	if _, err := sources.DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "old"}); err != nil {
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
