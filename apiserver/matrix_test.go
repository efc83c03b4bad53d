package apiserver

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// matrix lists for each RPC who may call it: A admin, D deployer, P deployer with the prefix `pr-` for objects with that
// prefix, V viewer, N node, and the loops S scheduler, G gc, R reconciler, F sources, C certs; 0 is every caller from outside,
// authenticated or not. An empty row is for the other servers of the cluster. It repeats the table of permissions, so that a change must be made in two places. A new RPC without
// a row fails the test.
var matrix = map[string]string{
	"CreateProject": "ADP", "PutProject": "ADP", "GetProject": "ADPVSGRFC", "ListProjects": "ADPVSGRFC", "WatchProjects": "ADPVSGRFC",
	"DeleteProject": "ADPGR", "UpdateProjectStatus": "N", "ScheduleProject": "S", "ScheduleProjects": "S", "RemoveProject": "G", "RetryProject": "ADP",
	"MoveProject": "ADPS", "RestoreProject": "ADPS", "CancelMove": "ADP",
	"RestartProject": "ADP", "BackupProject": "ADP", "ExtendProject": "ADP", "OverrideProject": "ADPGR", "ListOverrides": "ADPVSGRFC", "Logs": "ADPV",
	"Exec": "ADP", "PortForward": "ADP", "Top": "ADPV", "GetUsageHistory": "ADPV", "ListTombstones": "ADPVSGRFC", "AdoptProject": "ADP", "ReleaseProject": "ADP",
	"RollbackProject": "ADP", "GetProjectHistory": "ADPVSGRFC", "NoticeExpiry": "G",
	"Apply":      "ADPR",
	"CreateNode": "A", "PutNode": "A", "GetNode": "ADPVSGRFC", "ListNodes": "ADPVSGRFC", "WatchNodes": "ADPVSGRFC", "DeleteNode": "A",
	"Heartbeat": "N", "MarkNodeNotReady": "S", "MarkNodeDrained": "S",
	"ReconcileSource": "ADP", "SuspendSource": "ADP", "ResumeSource": "ADP", "ConfirmSource": "ADP",
	"Join": "0", "Connect": "N", "Attach": "N", "RenewCertificate": "N",
	"CreateSource": "A", "PutSource": "A", "GetSource": "ADPVSGRFC", "ListSources": "ADPVSGRFC", "WatchSources": "ADPVSGRFC", "DeleteSource": "A",
	"ListClaims": "ADPVSGRFC", "PlanSource": "ADPVSGRFC", "UpdateSourceStatus": "FR", "PublishSnapshot": "F", "UpdateClaims": "R", "RemoveSource": "R",
	"WatchHints": "F", "GetSourceSecret": "F",
	"CreateSecret": "ADP", "PutSecret": "ADP", "GetSecret": "ADPV", "ListSecrets": "ADPV", "DeleteSecret": "ADP",
	"GetVolume": "ADPVSGRFC", "ListVolumes": "ADPVSGRFC", "DeleteVolume": "ADP", "RecreateVolume": "ADP", "ReleaseVolume": "A",
	"CreateEvent": "NSGRF", "ListEvents": "ADPVSGRFC", "WatchEvents": "ADPVSGRFC", "TrimHistory": "G",
	"Watch":       "ADPVSGRFC",
	"CreateToken": "A", "ListTokens": "A", "DeleteToken": "A", "CreateLogin": "ADPV",
	"ListSessions": "ADPV", "DeleteSession": "ADPV", "StartDeviceLogin": "0", "FinishLogin": "0",
	"ListCertificateOrders": "ADPVC", "UpdateCertificate": "C", "DeleteCertificate": "C", "GetAcmeAccount": "C", "PutAcmeAccount": "C",
	"PresentChallenge": "C", "RemoveChallenge": "C",
	"MissingBlobs": "ADPF", "PutBlob": "ADPF", "GetBlob": "N", "TrimBlobs": "G",
	"GetInfo": "ADPVNSGRFC", "ListServers": "ADPVSGRFC", "Backup": "A",
	"FollowPeer": "",
}

// column is one caller of the matrix.
type column struct {
	letter string // empty: no caller is allowed
	conn   grpc.ClientConnInterface
}

// TestMatrix calls every RPC as every caller.
func TestMatrix(t *testing.T) {
	c := newCluster(t, nil)
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	made := func(name, role, prefix string, expire time.Time) grpc.ClientConnInterface {
		token := &carav1.Token{Metadata: &carav1.ObjectMeta{Name: name}, Role: role, NamePrefix: prefix}
		if !expire.IsZero() {
			token.ExpireAt = timestamppb.New(expire)
		}
		out, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return c.dial(t, out.GetSecret())
	}
	all := map[string]column{
		"anonymous": {"", c.dial(t, "")}, "admin": {"A", made("boss", "admin", "", time.Time{})}, "deployer": {"D", made("dev", "deployer", "", time.Time{})},
		"deployer with a prefix": {"P", made("ci", "deployer", "pr-", time.Time{})}, "viewer": {"V", made("eye", "viewer", "", time.Time{})},
		"node": {"N", c.node(t, "n1")}, "another node": {"N", c.node(t, "n2")},
		"deleted token": {"", made("gone", "admin", "", time.Time{})}, "expired token": {"", made("late", "admin", "", time.Now().Add(time.Second))},
	}
	for letter, name := range map[string]string{"S": "scheduler", "G": "gc", "R": "reconciler", "F": "sources", "C": "certs"} {
		conn, err := c.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = column{letter, conn}
	}
	if _, err := tokens.DeleteToken(t.Context(), &carav1.DeleteRequest{Name: "gone"}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		_, err := carav1.NewInfoServiceClient(all["expired token"].conn).GetInfo(t.Context(), &emptypb.Empty{})
		return api.Code(err) == codes.Unauthenticated
	})
	for method, desc := range rpcs() {
		row, ok := matrix[shortMethod(method)]
		if !ok {
			t.Errorf("%s has no row in the matrix: say who may call it", method)
			continue
		}
		for who, caller := range all {
			want := codes.PermissionDenied
			switch {
			case row == "0" || caller.letter != "" && strings.Contains(row, caller.letter):
				want = codes.OK
			case caller.letter == "":
				want = codes.Unauthenticated
			}
			err := invoke(t, caller.conn, method, desc, "pr-x", want)
			if row == "0" { // Join has the join token in its body, and checks it there
				if loop := caller.letter != "" && strings.Contains("SGRFC", caller.letter); loop != (api.Code(err) == codes.PermissionDenied) {
					t.Errorf("%s as %s: %v", method, who, err)
				}
				continue
			}
			if got := refusal(err); got != want && !(caller.letter == "N" && want == codes.OK && got == codes.PermissionDenied) {
				t.Errorf("%s as %s: %v (%v), want %v", method, who, got, err, want)
			}
			if caller.letter == "P" && want == codes.OK && methods[method].write && !methods[method].own && method != carav1.ApplyService_Apply_FullMethodName &&
				method != carav1.FileService_PutBlob_FullMethodName && method != carav1.TokenService_CreateLogin_FullMethodName { // they name no object
				if err := invoke(t, caller.conn, method, desc, "other", codes.PermissionDenied); api.Code(err) != codes.PermissionDenied {
					t.Errorf("%s of another prefix as %s: %v", method, who, err)
				}
			}
		}
	}
	for name := range matrix {
		if !known(name) {
			t.Errorf("the matrix has a row for %s, which is not in the contract", name)
		}
	}
}

func known(short string) bool {
	for method := range rpcs() {
		if shortMethod(method) == short {
			return true
		}
	}
	return false
}

// refusal returns the code of an error that means that the caller may not call; OK for everything else.
func refusal(err error) codes.Code {
	if code := api.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		return code
	}
	return codes.OK
}

// invoke calls an RPC with one message about an object of this name, and returns the first error. A stream that should be
// allowed is, if it has no error for a while. A refusal that should come is waited for.
func invoke(t *testing.T, conn grpc.ClientConnInterface, method string, desc protoreflect.MethodDescriptor, name string, want codes.Code) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in, out := message(t, desc.Input()), message(t, desc.Output())
	setName(in, name)
	if !desc.IsStreamingClient() && !desc.IsStreamingServer() {
		return conn.Invoke(ctx, method, in, out)
	}
	if want == codes.OK {
		allowed, quit := context.WithTimeout(ctx, 300*time.Millisecond)
		defer quit()
		ctx = allowed
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: desc.IsStreamingClient(), ServerStreams: desc.IsStreamingServer()}, method)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(in) // RecvMsg returns the error
	_ = stream.CloseSend()
	return stream.RecvMsg(out)
}

func message(t *testing.T, desc protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	typ, err := protoregistry.GlobalTypes.FindMessageByName(desc.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return typ.New().Interface()
}

// setName sets the object's name in a request, where objectName finds it.
func setName(m proto.Message, name string) {
	switch m := m.(type) {
	case *carav1.ExecRequest:
		proto.Merge(m, execStart(name, "", "true"))
		return
	case *carav1.PortForwardRequest:
		m.Message = &carav1.PortForwardRequest_Start{Start: &carav1.PortForwardStart{Name: name, Port: 80}}
		return
	}
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	if f := fields.ByName("name"); f != nil && f.Kind() == protoreflect.StringKind {
		r.Set(f, protoreflect.ValueOfString(name))
		return
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsList() || f.IsMap() || f.Message().Fields().ByName("metadata") == nil {
			continue
		}
		state.SetMeta(r.Mutable(f).Message().Interface(), &carav1.ObjectMeta{Name: name})
		return
	}
}

// TestMatrixOfREST sends a request to every REST path of the contract as every caller that can use REST.
func TestMatrixOfREST(t *testing.T) {
	h := newHouse(t, nil)
	routes := newDoor(t, h).routes
	for _, p := range routes.paths {
		if p.Method == http.MethodGet && routes.rpc(p.RPC, false).stream {
			continue // it never ends; the gRPC matrix covers it, with the same door
		}
		row := matrix[shortMethod(p.RPC)]
		for token, letter := range map[string]string{"": "", "nonsense": "", "admin": "A", "ci": "P", "viewer": "V", "n1": "N", "n2": "N"} {
			path := strings.ReplaceAll(example(p), "/x", "/pr-x")
			a := h.do(t, token, p.Method, path, "")
			want := "let in"
			switch {
			case row == "0" || letter != "" && strings.Contains(row, letter):
			case letter == "":
				want = "401"
			default:
				want = "403"
			}
			got := "let in"
			switch a.code {
			case http.StatusUnauthorized:
				got = "401"
			case http.StatusForbidden:
				got = "403"
			}
			if got != want && !(letter == "N" && want == "let in" && got == "403") {
				t.Errorf("%s %s as %q: %d %s, want %s", p.Method, path, token, a.code, a.body, want)
			}
		}
	}
}
