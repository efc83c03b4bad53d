package rules

import (
	"cmp"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// MovePhase is the only function that changes a project's phase. It checks the move and records the Phase condition and an
// event with the reason. p is the transaction's own copy; the caller writes it.
func MovePhase(t *state.Tx, p *carav1.Project, to api.Phase, by api.Role, reason api.Reason, message string) error {
	st := p.GetStatus()
	from := api.Phase(st.GetPhase())
	if err := api.CheckMove(from, to, by); err != nil {
		return api.Conflict("project %q: %v", p.GetMetadata().GetName(), err)
	}
	if from == to {
		return nil
	}
	st.Phase = string(to)
	if to != api.PhasePending && to != api.PhaseScheduled {
		st.MovedFrom = ""
	}
	if to == api.PhaseTerminating || to == api.PhaseTerminated || st.GetMove().GetRestore() == nil && to != api.PhaseScheduled && to != api.PhaseRunning {
		// Nobody copies the data of a project that its node does not run. A restore needs no running project.
		EndMove(t, p, api.ReasonMoveCancelled, "the project became "+string(to)+": "+message)
	}
	st.Conditions, _ = api.RemoveCondition(st.GetConditions(), api.CondPhase) // so that each move sets a new transition time
	SetCondition(t, p, &carav1.Condition{Type: api.CondPhase, Status: api.StatusTrue, Reason: string(reason), Message: message})
	typ := api.EventType(api.EventNormal)
	if to == api.PhaseFailed {
		typ = api.EventWarning
	}
	RecordEvent(t, RefTo(p), typ, reason, message)
	return nil
}

// LeaveNode removes the project from its node, so that it waits for a new one.
func LeaveNode(t *state.Tx, p *carav1.Project, reason api.Reason, message string) {
	st := p.GetStatus()
	holdOnNode(t, p)
	st.NodeRef, st.Services = "", lastRun(st.GetServices())
	st.Conditions, _ = api.RemoveCondition(st.GetConditions(), api.CondImagesReady)
	st.Conditions, _ = api.RemoveCondition(st.GetConditions(), api.CondReady)
	SetCondition(t, p, &carav1.Condition{Type: api.CondScheduled, Status: api.StatusFalse, Reason: string(reason), Message: message})
}

// lastRun returns what stays in the status of services that have left their node: the image of each container, so that the
// next node runs the same images.
func lastRun(services []*carav1.ServiceStatus) []*carav1.ServiceStatus {
	var out []*carav1.ServiceStatus
	for _, s := range services {
		if s.GetImageDigest() != "" {
			out = append(out, &carav1.ServiceStatus{
				Name: s.GetName(), State: api.ReasonWaiting, Image: s.GetImage(), ImageDigest: s.GetImageDigest(), SpecHash: s.GetSpecHash(),
			})
		}
	}
	return out
}

// keepDigests copies the last known images into a report about services that have no container yet.
func keepDigests(before, reported []*carav1.ServiceStatus) {
	for _, s := range reported {
		if s.GetContainerId() != "" || s.GetImageDigest() != "" {
			continue
		}
		for _, was := range before {
			if was.GetName() == s.GetName() && was.GetImage() == s.GetImage() {
				s.ImageDigest, s.SpecHash = was.GetImageDigest(), was.GetSpecHash()
			}
		}
	}
}

// SetCondition sets a condition for the current generation.
func SetCondition(t *state.Tx, p *carav1.Project, c *carav1.Condition) {
	c.ObservedGeneration = p.GetMetadata().GetGeneration()
	p.Status.Conditions, _ = api.SetCondition(p.GetStatus().GetConditions(), c, t.Now)
}

// newProject creates a project.
func newProject(t *state.Tx, in *carav1.Project, owner string, origin *carav1.Origin) (*carav1.Project, error) {
	p := &carav1.Project{
		ApiVersion: api.APIVersion,
		Kind:       api.KindProject,
		Metadata: &carav1.ObjectMeta{
			Name: in.GetMetadata().GetName(), Uid: state.NewUID(), Generation: 1,
			Labels: in.GetMetadata().GetLabels(), Annotations: in.GetMetadata().GetAnnotations(),
			CreationTimestamp: timestamppb.New(t.Now), Owner: owner, Origin: origin,
		},
		Spec:   in.GetSpec(), // shared with the request, which nothing changes any more
		Status: &carav1.ProjectStatus{},
	}
	Derive(t, p)
	by := "by " + t.Actor.Name
	if origin != nil {
		by = "from " + Whence(owner, origin)
	}
	if err := MovePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonCreated, "accepted "+by); err != nil {
		return nil, err
	}
	SetCondition(t, p, &carav1.Condition{Type: api.CondScheduled, Status: api.StatusFalse, Reason: api.ReasonWaiting, Message: "waiting for the scheduler"})
	KeepRevision(t, p, "")
	return p, cmp.Or(useBlobs(t, p), useVolumes(t, p), claimPorts(t, nil, p), claimHosts(t, nil, p))
}

// ChangeSpec gives a project a new spec. A running project is updated in place. p is the transaction's own copy of old.
func ChangeSpec(t *state.Tx, old, p *carav1.Project, spec *carav1.ProjectSpec, what string) error {
	p.Spec = proto.CloneOf(spec)
	p.Metadata.Generation++
	Derive(t, p)
	if err := cmp.Or(useBlobs(t, p), useVolumes(t, p)); err != nil {
		return err
	}
	endMoveOfOtherData(t, p, "the volumes of the project changed: "+what)
	if err := cmp.Or(claimHosts(t, old, p), claimPorts(t, old, p)); err != nil {
		return err
	}
	dropUnused(t, old, spec, "changed")
	if sameContainers(old.GetSpec(), spec) {
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonSpecChanged, what)
		return nil
	}
	switch p.GetStatus().GetPhase() {
	case api.PhaseRunning:
		return MovePhase(t, p, api.PhaseScheduled, api.RoleServer, api.ReasonSpecChanged, what)
	case api.PhaseFailed:
		LeaveNode(t, p, api.ReasonWaiting, "waiting for the scheduler")
		return MovePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonSpecChanged, what)
	case api.PhaseTerminating, api.PhaseTerminated:
		return ErrTerminating(p)
	}
	RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonSpecChanged, what)
	return nil
}

// Derive sets the fields that follow from the spec and from the override, as this transaction reads it.
func Derive(t *state.Tx, p *carav1.Project) {
	st := p.GetStatus()
	st.SpecHash = api.Hash(p.GetSpec())
	st.Hosts = t.Hosts.Of(p.GetSpec())
	SetCertificates(t, p)
	SetExpiry(t, p)
}

// SetExpiry is the only function that changes a project's expiry. A change removes the notice about the old expiry. The
// collector adds a new notice in time.
func SetExpiry(t *state.Tx, p *carav1.Project) {
	at := expiryOf(t, p)
	if proto.Equal(at, p.GetStatus().GetExpireAt()) {
		return
	}
	p.Status.ExpireAt = at
	p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondExpiring)
}

// expiryOf returns the expiry in the spec, or a later one if a person extended it.
func expiryOf(t *state.Tx, p *carav1.Project) *timestamppb.Timestamp {
	declared := p.GetSpec().GetExpireAt()
	o, ok := state.Read[*carav1.Override](t, p.GetMetadata().GetName())
	if !ok || declared == nil || !plan.InForce(o, t.Now) || !o.GetExpireAt().AsTime().After(declared.AsTime()) {
		return declared
	}
	return timestamppb.New(o.GetExpireAt().AsTime())
}

// sameContainers reports whether an agent would see no difference between two specs.
func sameContainers(a, b *carav1.ProjectSpec) bool {
	bare := func(s *carav1.ProjectSpec) *carav1.ProjectSpec {
		volumes := proto.CloneOf(&carav1.ProjectSpec{Volumes: s.GetVolumes()}).GetVolumes()
		for _, v := range volumes {
			v.Reclaim = ""
		}
		return &carav1.ProjectSpec{
			Services: s.GetServices(), Volumes: volumes, Ingress: s.GetIngress(),
			NodeSelector: s.GetNodeSelector(), ImagePullSecrets: s.GetImagePullSecrets(),
		}
	}
	return api.Hash(bare(a)) == api.Hash(bare(b))
}

// ErrTerminating is the error for a change of a project that is going away.
func ErrTerminating(p *carav1.Project) error {
	return api.Terminating("project %q is being deleted: try again when it is gone", p.GetMetadata().GetName())
}

// holdOnNode records that the node that the project leaves still has its containers. A node that was still waiting for the
// project has none.
func holdOnNode(t *state.Tx, p *carav1.Project) {
	st := p.GetStatus()
	if st.GetHeldBy() != "" || st.GetNodeRef() == "" {
		return
	}
	if n, ok := state.Read[*carav1.Node](t, st.GetNodeRef()); ok && n.GetStatus().GetState() != api.NodeNotReady {
		st.HeldBy = st.GetNodeRef()
	}
}

// awaitHolder records what a project still waits for on its new node. The node that holds it does not wait: its agent
// replaces the containers of an older epoch.
func awaitHolder(t *state.Tx, p *carav1.Project) {
	st := p.GetStatus()
	switch st.GetHeldBy() {
	case "":
	case st.GetNodeRef():
		st.HeldBy = ""
	default:
		SetCondition(t, p, &carav1.Condition{
			Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonMoving,
			Message: "waits until node " + st.GetHeldBy() + " has stopped what it ran of it",
		})
	}
}
