package agent_test

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// heldVolumes is what the server knows of the volumes in the agent's engine; guarded by server.mu.
type heldVolumes struct {
	held     *carav1.VolumeInventory // the newest
	taken    int                     // inventories
	deaf     bool                    // inventories do not change what the server says of volumes
	removals map[string]*carav1.RemoveVolume
	receives map[string]*carav1.ReceiveVolume
	restores map[string]*carav1.RestoreVolume
}

// volumeRequests sends what the server requests about volumes. mu is held.
func (s *server) volumeRequests(out chan<- *carav1.ConnectResponse) {
	for _, r := range s.receives {
		out <- &carav1.ConnectResponse{Message: &carav1.ConnectResponse_ReceiveVolume{ReceiveVolume: r}}
	}
	for _, r := range s.restores {
		out <- &carav1.ConnectResponse{Message: &carav1.ConnectResponse_RestoreVolume{RestoreVolume: r}}
	}
	for _, r := range s.removals {
		out <- &carav1.ConnectResponse{Message: &carav1.ConnectResponse_RemoveVolume{RemoveVolume: r}}
	}
}

// receive allows another node to send a volume, now and on each connection.
func (s *server) receive(r *carav1.ReceiveVolume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receives == nil {
		s.receives = map[string]*carav1.ReceiveVolume{}
	}
	s.receives[r.GetUid()] = r
	s.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_ReceiveVolume{ReceiveVolume: r}})
}

// restore requests that a volume is restored, now and on each connection.
func (s *server) restore(r *carav1.RestoreVolume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restores == nil {
		s.restores = map[string]*carav1.RestoreVolume{}
	}
	s.restores[r.GetUid()] = r
	s.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RestoreVolume{RestoreVolume: r}})
}

// restoreEnds ends the requests for a volume.
func (s *server) restoreEnds(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.restores, uid)
}

// moveReports counts the reports about a move with a result.
func (s *server) moveReports(result string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.moved {
		if r.GetResult() == result {
			n++
		}
	}
	return n
}

// useVolumes gives each Managed volume of a project's spec its data, as the server does.
func useVolumes(p *carav1.Project) {
	var uses []*carav1.VolumeUse
	for _, v := range api.ManagedVolumes(p.GetSpec()) {
		use := api.VolumeUse(p, v.GetName())
		if use == nil {
			use = &carav1.VolumeUse{Name: v.GetName(), Uid: volumeUID(p.GetMetadata().GetName(), v.GetName()), Node: "n1"}
		}
		uses = append(uses, use)
	}
	p.Status.Volumes = uses
}

// volumeUID is the uid of the first data of a project's volume.
func volumeUID(project, volume string) string { return fmt.Sprintf("%s-%s-0001", volume, project) }

// dataName is the engine's name of that data.
func dataName(project, volume string) string {
	return "cara-" + project + "." + volume + "-" + volumeUID(project, volume)[:8]
}

// heed takes an inventory in: what is in it was made. mu is held.
func (s *server) heed(held *carav1.VolumeInventory) {
	if held == nil {
		return
	}
	s.held, s.taken = held, s.taken+1
	there := map[string]bool{}
	for _, v := range held.GetVolumes() {
		there[v.GetUid()] = true
	}
	for uid := range s.removals {
		if !there[uid] {
			delete(s.removals, uid)
		}
	}
	for name, p := range s.projects {
		next := proto.CloneOf(p)
		for _, use := range next.GetStatus().GetVolumes() {
			use.Made = use.GetMade() || there[use.GetUid()] && !s.deaf
		}
		if !proto.Equal(p, next) {
			s.projects[name] = next
			s.send(s.assignment(name))
		}
	}
}

// holds returns the newest inventory, by uid, and how many there were.
func (s *server) holds() (map[string]*carav1.HeldVolume, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]*carav1.HeldVolume{}
	for _, v := range s.held.GetVolumes() {
		out[v.GetUid()] = v
	}
	return out, s.taken
}

// removeVolume asks the agent to remove the first data of a project's volume, now and on each connection until it is gone.
func (s *server) removeVolume(project, volume string) {
	s.remove(&carav1.RemoveVolume{Uid: volumeUID(project, volume), Project: project, Name: volume})
}

// removeCopy asks for the same, if the volume is the copy of a move that no project has used.
func (s *server) removeCopy(project, volume string) {
	s.remove(&carav1.RemoveVolume{Uid: volumeUID(project, volume), Project: project, Name: volume, Unused: true})
}

func (s *server) remove(r *carav1.RemoveVolume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removals == nil {
		s.removals = map[string]*carav1.RemoveVolume{}
	}
	s.removals[r.GetUid()] = r
	s.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RemoveVolume{RemoveVolume: r}})
}

// removing counts the volumes that are still to be removed.
func (s *server) removing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.removals)
}
