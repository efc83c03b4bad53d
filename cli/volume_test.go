package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// withVolume starts a project with the Managed volume db on n1, whose engine has it.
func (h *testServer) withVolume(t *testing.T, project string) {
	t.Helper()
	r := h.ctl(t.Context(), `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"`+project+`"},
		"spec":{"services":[{"name":"web","image":"nginx:1","volumeMounts":[{"name":"db","mountPath":"/d"}]}],"volumes":[{"name":"db","type":"Managed"}]}}`,
		"apply", "-f", "-")
	if r.code != 0 {
		t.Fatalf("apply %s: %s", project, r.err)
	}
	must(t, h.schedule(t.Context(), project, "Bind", "n1", ""))
}

func TestWatchOfVolumes(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	must(t, h.holds(t.Context(), "n1"))
	h.withVolume(t, "shop")
	h.withVolume(t, "blog")
	must(t, h.holds(t.Context(), "n1", "shop.db=2048", "blog.db"))
	all, _ := h.start(t, "get", "volumes", "-w")
	kept, _ := h.start(t, "get", "volumes", "--state", "Retained", "-w")
	named, _ := h.start(t, "get", "volume", "shop.db", "-w", "-o", "name")
	of, _ := h.start(t, "get", "volumes", "--project", "blog", "--node", "n1", "-o", "name", "-w")
	all.until(t, "shop.db InUse n1 shop 2.0Ki")
	kept.until(t, "NAME STATE")
	named.until(t, "volume/shop.db\n")
	of.until(t, "volume/blog.db\n")
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	all.until(t, "shop.db Retained n1 shop 2.0Ki")
	kept.until(t, "shop.db Retained n1")
	named.until(t, "volume/shop.db\nvolume/shop.db\n")
	h.withVolume(t, "shop") // it leaves the filter, and is not gone
	kept.until(t, "shop.db InUse n1")
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "blog", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	of.until(t, "volume/blog.db\nvolume/blog.db\n")
	if r := h.ctl(t.Context(), "", "delete", "volume", "shop.db", "--yes"); r.code != 0 {
		t.Fatal(r.err)
	}
	all.until(t, "shop.db Deleting")
	must(t, h.holds(t.Context(), "n1", "blog.db"))
	all.until(t, "shop.db (gone)")
	if strings.Contains(kept.String(), "(gone)") || strings.Contains(of.String(), "shop") {
		t.Errorf("watches with filters show what they should not:\n%s%s", kept, of)
	}
}

// Deletion ends when the node has confirmed it. A new volume of the name does not matter.
func TestDeleteVolumeWaitsForItsNode(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	must(t, h.holds(t.Context(), "n1"))
	h.withVolume(t, "shop")
	must(t, h.holds(t.Context(), "n1", "shop.db"))
	if r := h.ctl(t.Context(), "", "delete", "project", "shop", "--force"); r.code != 0 {
		t.Fatal(r.err)
	}
	out, stop := h.start(t, "delete", "--wait", "volume/shop.db", "volume/none", "--yes")
	out.until(t, "volume \"shop.db\" is being deleted: node n1 has not confirmed it yet\n")
	h.withVolume(t, "shop")
	list := h.ctl(t.Context(), "", "get", "volumes", "-o", "name")
	if n := strings.Count(list.out, "volume/"); n != 2 {
		t.Fatalf("there are %d volumes, want the new one and the one that is being deleted:\n%s%s", n, list.out, list.err)
	}
	if strings.Contains(out.String(), "\" deleted") {
		t.Fatalf("it ended too early:\n%s", out)
	}
	must(t, h.holds(t.Context(), "n1", "shop.db"))
	out.until(t, "error: volume \"none\" not found\n")
	want := "volume \"shop.db\" is being deleted: node n1 has not confirmed it yet\nvolume \"shop.db\" deleted\nerror: volume \"none\" not found\n"
	if code := stop(); code != 1 || out.String() != want {
		t.Errorf("ended with %d and\n%s, want\n%s", code, out.String(), want)
	}
	if r := h.ctl(t.Context(), "", "get", "volume", "shop.db"); r.code != 0 {
		t.Errorf("the new volume is gone, too: %s", r.err)
	}
}

// volumeServer answers the calls of a deletion and records them.
type volumeServer struct {
	grpc.ClientConnInterface
	volume *carav1.Volume
	newer  *carav1.Volume // has the name after the deletion, if it is set
	calls  []string
}

func (s *volumeServer) Invoke(_ context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	switch req := args.(type) {
	case *carav1.GetRequest:
		if len(s.calls) > 0 && s.newer == nil {
			return api.NotFound("no volume")
		}
		if len(s.calls) > 0 {
			proto.Merge(reply.(proto.Message), s.newer)
			return nil
		}
	case *carav1.DeleteRequest:
		s.calls = append(s.calls, req.GetName()+" "+req.GetUid())
	default:
		return fmt.Errorf("call of %s was not expected", method)
	}
	proto.Merge(reply.(proto.Message), s.volume)
	return nil
}

// What a person confirmed is deleted, and no newer volume of the name: the request has the uid.
func TestDeleteVolumeNamesTheData(t *testing.T) {
	s := &volumeServer{volume: &carav1.Volume{
		Metadata: &carav1.ObjectMeta{Name: "shop.db", Uid: "u1"}, Status: &carav1.VolumeStatus{State: api.VolumeRetained},
	}}
	var out bytes.Buffer
	o := &deleteOptions{app: &app{Streams: Streams{In: strings.NewReader("y\n"), Out: &out, Err: &out}, now: time.Now}}
	if err := o.deleteVolume(t.Context(), s, "shop.db"); err == nil || len(s.calls) > 0 {
		t.Errorf("without a terminal and --yes: %v, calls %v", err, s.calls)
	}
	o.yes = true
	if err := o.deleteVolume(t.Context(), s, "shop.db"); err != nil || !slices.Equal(s.calls, []string{"shop.db u1"}) {
		t.Errorf("%v, calls %v", err, s.calls)
	}
	s.calls, s.newer = nil, &carav1.Volume{Metadata: &carav1.ObjectMeta{Name: "shop.db", Uid: "u2"}}
	if err := o.deleteVolume(t.Context(), s, "shop.db"); err != nil {
		t.Error(err)
	}
	if want := strings.Repeat("volume \"shop.db\" deleted\n", 2); out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestVolumeText(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	v := &carav1.Volume{
		Metadata: &carav1.ObjectMeta{Name: "shop.db", CreationTimestamp: timestamppb.New(now.Add(-34 * 24 * time.Hour))},
		Spec:     &carav1.VolumeSpec{Project: "shop"}, Status: &carav1.VolumeStatus{Node: "n1"},
	}
	if got, want := volumeText(v, now), `volume "shop.db" has data of unknown size of project shop on node n1, made 34d ago; no backup of it is known`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	v.Status.SizeBytes, v.Status.SizeTime = proto.Int64(0), timestamppb.New(now)
	if got, want := volumeText(v, now), `volume "shop.db" has 0 bytes of data of project shop on node n1, made 34d ago; no backup of it is known`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
