package apiserver

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// method defines who may call a method, and whether the call changes something.
type method struct {
	roles  []api.Role
	write  bool
	own    bool // the call limits the caller itself, to what is its own
	remote bool // it needs the agent of a node: another server may carry it here on behalf of the caller
	quiet  bool // an automatic report: its audit line is logged at debug level

	// Limits of a streaming caller: see frames. Zero means the default.
	message int64      // bytes of one message
	pace    rate.Limit // messages a second
	burst   int
}

// readers may read everything except secret values, which no read returns.
var (
	readers   = []api.Role{api.RoleAdmin, api.RoleDeployer, api.RoleViewer, api.RoleScheduler, api.RoleGC, api.RoleReconciler, api.RoleSources, api.RoleCerts} //nolint:gochecknoglobals // a table that never changes
	deployers = []api.Role{api.RoleAdmin, api.RoleDeployer}                                                                                                    //nolint:gochecknoglobals // a table that never changes
	admins    = []api.Role{api.RoleAdmin}                                                                                                                      //nolint:gochecknoglobals // a table that never changes
	everyone  = []api.Role{api.RoleNone, api.RoleAdmin, api.RoleDeployer, api.RoleViewer, api.RoleNode}                                                        //nolint:gochecknoglobals // a table that never changes
	nodes     = []api.Role{api.RoleNode}                                                                                                                       //nolint:gochecknoglobals // a table that never changes
)

func reads(roles ...api.Role) method  { return method{roles: roles} }
func writes(roles ...api.Role) method { return method{roles: roles, write: true} }
func reports(roles ...api.Role) method {
	return method{roles: roles, write: true, quiet: true}
}

// needsAgent is for a call that goes through the server with the agent of the project's node.
func needsAgent(m method) method {
	m.remote = true
	return m
}

// methods defines who may call which method. A method that is missing here is forbidden. A test compares it with the
// generated services.
var methods = map[string]method{ //nolint:gochecknoglobals // a table that never changes
	"/cara.v1.ProjectService/CreateProject":       writes(deployers...),
	"/cara.v1.ProjectService/PutProject":          writes(deployers...),
	"/cara.v1.ProjectService/GetProject":          reads(readers...),
	"/cara.v1.ProjectService/ListProjects":        reads(readers...),
	"/cara.v1.ProjectService/WatchProjects":       reads(readers...),
	"/cara.v1.ProjectService/DeleteProject":       writes(api.RoleAdmin, api.RoleDeployer, api.RoleGC, api.RoleReconciler),
	"/cara.v1.ProjectService/UpdateProjectStatus": reports(nodes...),
	"/cara.v1.ProjectService/ScheduleProject":     writes(api.RoleScheduler),
	"/cara.v1.ProjectService/ScheduleProjects":    writes(api.RoleScheduler),
	"/cara.v1.ProjectService/RemoveProject":       writes(api.RoleGC),
	"/cara.v1.ProjectService/MoveProject":         writes(api.RoleAdmin, api.RoleDeployer, api.RoleScheduler),
	"/cara.v1.ProjectService/RestoreProject":      writes(api.RoleAdmin, api.RoleDeployer, api.RoleScheduler),
	"/cara.v1.ProjectService/CancelMove":          writes(deployers...),
	"/cara.v1.ProjectService/RetryProject":        writes(deployers...),
	"/cara.v1.ProjectService/RestartProject":      writes(deployers...),
	"/cara.v1.ProjectService/BackupProject":       writes(deployers...),
	"/cara.v1.ProjectService/ExtendProject":       writes(deployers...),
	"/cara.v1.ProjectService/OverrideProject":     writes(api.RoleAdmin, api.RoleDeployer, api.RoleGC, api.RoleReconciler),
	"/cara.v1.ProjectService/ListOverrides":       reads(readers...),
	"/cara.v1.ProjectService/Logs":                needsAgent(reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer)),
	"/cara.v1.ProjectService/Exec":                needsAgent(writes(deployers...)),
	"/cara.v1.ProjectService/PortForward":         needsAgent(writes(deployers...)),
	"/cara.v1.ProjectService/Top":                 needsAgent(reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer)),
	"/cara.v1.ProjectService/GetUsageHistory":     needsAgent(reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer)),
	"/cara.v1.ProjectService/ListTombstones":      reads(readers...),
	"/cara.v1.ProjectService/AdoptProject":        writes(deployers...),
	"/cara.v1.ProjectService/ReleaseProject":      writes(deployers...),
	"/cara.v1.ProjectService/RollbackProject":     writes(deployers...),
	"/cara.v1.ProjectService/GetProjectHistory":   reads(readers...),
	"/cara.v1.ProjectService/NoticeExpiry":        writes(api.RoleGC),

	"/cara.v1.ApplyService/Apply": writes(api.RoleAdmin, api.RoleDeployer, api.RoleReconciler),

	"/cara.v1.NodeService/CreateNode":       writes(admins...),
	"/cara.v1.NodeService/PutNode":          writes(admins...),
	"/cara.v1.NodeService/GetNode":          reads(readers...),
	"/cara.v1.NodeService/ListNodes":        reads(readers...),
	"/cara.v1.NodeService/WatchNodes":       reads(readers...),
	"/cara.v1.NodeService/DeleteNode":       writes(admins...),
	"/cara.v1.NodeService/Heartbeat":        reports(nodes...),
	"/cara.v1.NodeService/MarkNodeNotReady": writes(api.RoleScheduler),
	"/cara.v1.NodeService/MarkNodeDrained":  writes(api.RoleScheduler),
	"/cara.v1.NodeService/Join":             writes(everyone...),
	"/cara.v1.NodeService/RenewCertificate": writes(nodes...),
	"/cara.v1.NodeService/Connect":          {roles: nodes, write: true, quiet: true, message: 2 << 20, pace: 50, burst: 200},
	"/cara.v1.NodeService/Attach":           reports(nodes...),

	"/cara.v1.SourceService/CreateSource":       writes(admins...),
	"/cara.v1.SourceService/PutSource":          writes(admins...),
	"/cara.v1.SourceService/GetSource":          reads(readers...),
	"/cara.v1.SourceService/ListSources":        reads(readers...),
	"/cara.v1.SourceService/WatchSources":       reads(readers...),
	"/cara.v1.SourceService/DeleteSource":       writes(admins...),
	"/cara.v1.SourceService/ReconcileSource":    writes(deployers...),
	"/cara.v1.SourceService/SuspendSource":      writes(deployers...),
	"/cara.v1.SourceService/ResumeSource":       writes(deployers...),
	"/cara.v1.SourceService/ConfirmSource":      writes(deployers...),
	"/cara.v1.SourceService/PlanSource":         reads(readers...),
	"/cara.v1.SourceService/ListClaims":         reads(readers...),
	"/cara.v1.SourceService/UpdateSourceStatus": reports(api.RoleSources, api.RoleReconciler),
	"/cara.v1.SourceService/PublishSnapshot":    writes(api.RoleSources),
	"/cara.v1.SourceService/UpdateClaims":       reports(api.RoleReconciler),
	"/cara.v1.SourceService/RemoveSource":       writes(api.RoleReconciler),
	"/cara.v1.SourceService/WatchHints":         reads(api.RoleSources),
	"/cara.v1.SourceService/GetSourceSecret":    reads(api.RoleSources),

	"/cara.v1.SecretService/CreateSecret": writes(deployers...),
	"/cara.v1.SecretService/PutSecret":    writes(deployers...),
	"/cara.v1.SecretService/GetSecret":    reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer),
	"/cara.v1.SecretService/ListSecrets":  reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer),
	"/cara.v1.SecretService/DeleteSecret": writes(deployers...),

	"/cara.v1.VolumeService/GetVolume":      reads(readers...),
	"/cara.v1.VolumeService/ListVolumes":    reads(readers...),
	"/cara.v1.VolumeService/DeleteVolume":   writes(deployers...),
	"/cara.v1.VolumeService/RecreateVolume": writes(deployers...),
	"/cara.v1.VolumeService/ReleaseVolume":  writes(admins...),

	"/cara.v1.EventService/CreateEvent": reports(api.RoleNode, api.RoleScheduler, api.RoleGC, api.RoleReconciler, api.RoleSources),
	"/cara.v1.EventService/ListEvents":  reads(readers...),
	"/cara.v1.EventService/WatchEvents": reads(readers...),
	"/cara.v1.EventService/TrimHistory": writes(api.RoleGC),

	"/cara.v1.WatchService/Watch": reads(readers...),

	"/cara.v1.TokenService/CreateToken": writes(admins...),
	"/cara.v1.TokenService/ListTokens":  reads(admins...),
	"/cara.v1.TokenService/DeleteToken": writes(admins...),
	"/cara.v1.TokenService/CreateLogin": writes(api.RoleAdmin, api.RoleDeployer, api.RoleViewer),

	"/cara.v1.SessionService/ListSessions":  reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer),
	"/cara.v1.SessionService/DeleteSession": {roles: []api.Role{api.RoleAdmin, api.RoleDeployer, api.RoleViewer}, write: true, own: true},

	"/cara.v1.SessionService/StartDeviceLogin": {roles: everyone, write: true, own: true},
	"/cara.v1.SessionService/FinishLogin":      {roles: everyone, write: true, own: true},

	"/cara.v1.CertificateService/ListCertificateOrders": reads(api.RoleAdmin, api.RoleDeployer, api.RoleViewer, api.RoleCerts),
	"/cara.v1.CertificateService/UpdateCertificate":     writes(api.RoleCerts),
	"/cara.v1.CertificateService/DeleteCertificate":     writes(api.RoleCerts),
	"/cara.v1.CertificateService/GetAcmeAccount":        reads(api.RoleCerts),
	"/cara.v1.CertificateService/PutAcmeAccount":        writes(api.RoleCerts),
	"/cara.v1.CertificateService/PresentChallenge":      reports(api.RoleCerts),
	"/cara.v1.CertificateService/RemoveChallenge":       reports(api.RoleCerts),

	"/cara.v1.FileService/MissingBlobs": reads(api.RoleAdmin, api.RoleDeployer, api.RoleSources),
	"/cara.v1.FileService/PutBlob":      writes(api.RoleAdmin, api.RoleDeployer, api.RoleSources),
	"/cara.v1.FileService/GetBlob":      reads(nodes...),
	"/cara.v1.FileService/TrimBlobs":    writes(api.RoleGC),

	"/cara.v1.InfoService/ListServers": reads(readers...),
	"/cara.v1.InfoService/GetInfo":     reads(append(slices.Clone(readers), api.RoleNode)...),
	"/cara.v1.InfoService/Backup":      writes(admins...),

	"/cara.v1.PeerService/FollowPeer": reads(api.RoleServer),
}

// authorise returns an error if the actor may not call the method.
func authorise(actor identity.Actor, name string) error {
	m, ok := methods[name]
	switch {
	case ok && slices.Contains(m.roles, actor.Role):
		return nil
	case actor.Role == api.RoleNone:
		return errNobody()
	case !ok:
		return api.Unimplemented("there is no method %s", name)
	default:
		return api.Forbidden("%s has the role %s, which cannot %s; %s", actor.Name, actor.Role, actionOf(name), needed(m.roles))
	}
}

func errNobody() error {
	return api.Unauthenticated("this needs an identity: send `Authorization: Bearer TOKEN` (caractrl: --token-file)")
}

// needed says who may call a method. Only people can get another role; the roles of Cara's own programs are no help to them.
func needed(roles []api.Role) string {
	var words []string
	for _, r := range roles {
		if r == api.RoleAdmin || r == api.RoleDeployer || r == api.RoleViewer {
			words = append(words, string(r))
		}
	}
	if len(words) == 0 {
		return "only Cara's own programs can"
	}
	return "you need the role " + strings.Join(words, " or ")
}

// actions say what methods do whose names do not consist of a verb and an object.
var actions = map[string]string{ //nolint:gochecknoglobals // a table that never changes
	"Apply": "apply manifests", "Attach": "act as a node", "Backup": "back up the server", "Connect": "act as a node", "Exec": "run commands in containers",
	"GetInfo": "read about the server", "Heartbeat": "act as a node", "Join": "join nodes", "Logs": "read logs", "MissingBlobs": "upload files",
	"PortForward": "forward ports", "PutBlob": "upload files", "Top": "read the usage", "Watch": "watch objects",
}

// verbs are the words for verbs of methods that are not plain English.
var verbs = map[string]string{"backup": "back up", "get": "read", "list": "read", "put": "create or replace"} //nolint:gochecknoglobals // a table that never changes

// actionOf returns what a method does, in words for its caller.
func actionOf(name string) string {
	short := shortMethod(name)
	if words, ok := actions[short]; ok {
		return words
	}
	verb, object, _ := strings.Cut(spaced(short), " ")
	if word, ok := verbs[verb]; ok {
		verb = word
	}
	switch rest, endsInY := strings.CutSuffix(object, "y"); {
	case endsInY:
		object = rest + "ies"
	case !strings.HasSuffix(object, "s"):
		object += "s"
	}
	return verb + " " + object
}

// spaced returns the words of a name like GetProject in lower case.
func spaced(name string) string {
	var out strings.Builder
	for i, c := range name {
		if unicode.IsUpper(c) && i > 0 {
			out.WriteByte(' ')
		}
		out.WriteRune(unicode.ToLower(c))
	}
	return out.String()
}

func shortMethod(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// objectName returns the name of the object in a request, or "" if it has none or several.
func objectName(req proto.Message) string {
	switch r := req.(type) {
	case interface{ GetName() string }:
		return r.GetName()
	case interface{ GetSource() string }: // snapshots, claims and the reconciler's apply
		return r.GetSource()
	case *carav1.ExecRequest:
		return r.GetStart().GetName()
	case *carav1.PortForwardRequest:
		return r.GetStart().GetName()
	}
	r := req.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsList() || f.IsMap() || !r.Has(f) {
			continue
		}
		if meta := api.Meta(r.Get(f).Message().Interface()); meta != nil {
			return meta.GetName()
		}
	}
	return ""
}
