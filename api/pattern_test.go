package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestMatchHostSpellsShortPatternsOut(t *testing.T) {
	prod := HostTemplate{Environment: "prod", BaseDomain: "example.com"}
	for _, tt := range []struct {
		template      HostTemplate
		pattern, host string
		want          bool
	}{
		{prod, "web", "web.prod.example.com", true},
		{prod, "web", "web.bank.example", false},
		{prod, "pr-*", "pr-1.prod.example.com", true},
		{prod, "pr-*", "pr-1.bank.example", false},
		{prod, "*", "www.bank.example", true},
		{prod, "*.bank.example", "www.bank.example", true},
		{HostTemplate{}, "pr-*", "pr-1", true},
		{HostTemplate{}, "web", "web.example.com", false},
	} {
		if got := tt.template.MatchHost([]string{"other", tt.pattern}, tt.host); got != tt.want {
			t.Errorf("MatchHost(%q, %q) with %+v = %v", tt.pattern, tt.host, tt.template, got)
		}
	}
}

func TestSourceDenials(t *testing.T) {
	ref := func(name string) *carav1.EnvVar {
		return &carav1.EnvVar{Name: "A", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: name, Key: "k"}}}
	}
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "shop"},
		Spec: &carav1.ProjectSpec{
			Services:         []*carav1.Service{{Name: "web", Env: []*carav1.EnvVar{ref("shop-db"), ref("prod-db")}}},
			ImagePullSecrets: []string{"registry"},
		},
	}
	hosts := []string{"shop.prod.example.com", "www.bank.example"}
	for name, tt := range map[string]struct {
		allow *carav1.SourceAllow
		want  []string
	}{
		"nothing said": {nil, []string{
			`source "platform" may not use Secret "prod-db"; add it to spec.allow.secrets of the source`,
			`source "platform" may not use Secret "registry"; add it to spec.allow.secrets of the source`,
			`source "platform" may not use Secret "shop-db"; add it to spec.allow.secrets of the source`,
		}},
		"all Secrets": {&carav1.SourceAllow{Secrets: []string{"*"}}, nil},
		"some Secrets": {&carav1.SourceAllow{Secrets: []string{"shop-*", "registry"}}, []string{
			`source "platform" may not use Secret "prod-db"; add it to spec.allow.secrets of the source`,
		}},
		"hosts": {&carav1.SourceAllow{Secrets: []string{"*"}, Hosts: []string{"shop"}}, []string{
			`source "platform" may not claim host "www.bank.example"; add it to spec.allow.hosts of the source`,
		}},
		"names": {&carav1.SourceAllow{Secrets: []string{"*"}, Names: []string{"web", "web-*"}}, []string{
			`source "platform" may not declare project "shop"; add it to spec.allow.names of the source`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := SourceDenials("platform", tt.allow, p, hosts, HostTemplate{Environment: "prod", BaseDomain: "example.com"})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSecretUsesKnowsEveryField fails when the contract gets a field that names a Secret and SecretUses does not know.
func TestSecretUsesKnowsEveryField(t *testing.T) {
	known := []string{"backup.secretRef", "imagePullSecrets", "ingress.access.basicAuth.secretRef", "ingress.tls.secretRef", "services.env.secretVars", "services.env.valueFrom.secretKeyRef", "services.files.secretKeyRef", "services.files.secretVars"}
	var found []string
	var walk func(path string, d protoreflect.MessageDescriptor)
	walk = func(path string, d protoreflect.MessageDescriptor) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			at := strings.TrimPrefix(path+"."+fd.JSONName(), ".")
			if strings.Contains(strings.ToLower(fd.JSONName()), "secret") {
				found = append(found, at)
			} else if fd.Message() != nil && !fd.IsMap() {
				walk(at, fd.Message())
			}
		}
	}
	walk("", (&carav1.ProjectSpec{}).ProtoReflect().Descriptor())
	slices.Sort(found)
	if diff := cmp.Diff(known, found); diff != "" {
		t.Errorf("fields of a project that name Secrets (-known +in the contract): %s", diff)
	}
	spec := &carav1.ProjectSpec{
		Services: []*carav1.Service{
			{Name: "db"},
			{
				Name:  "web",
				Env:   []*carav1.EnvVar{{Name: "PLAIN", Value: "x"}, {Name: "A", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "b", Key: "k"}}}},
				Files: []*carav1.File{{Path: "/f", SecretKeyRef: &carav1.SecretKeyRef{Name: "a", Key: "f"}}},
			},
		},
		ImagePullSecrets: []string{"b"},
		Backup:           &carav1.Backup{SecretRef: "c"},
	}
	uses := []SecretUse{
		{"b", "k", "spec.services[1].env[1].valueFrom.secretKeyRef"},
		{"a", "f", "spec.services[1].files[0].secretKeyRef"},
		{"b", "", "spec.imagePullSecrets[0]"},
		{"c", "", "spec.backup.secretRef"},
	}
	if diff := cmp.Diff(uses, SecretUses(spec)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, SecretNames(spec)); diff != "" {
		t.Error(diff)
	}
}

// TestSecretVarsAreUses: a Secret in a variable counts wherever Secrets count.
func TestSecretVarsAreUses(t *testing.T) {
	vars := func(secret string) []*carav1.SecretVar {
		return []*carav1.SecretVar{{Name: "P", SecretKeyRef: &carav1.SecretKeyRef{Name: secret, Key: "k"}}}
	}
	spec := &carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "web", Env: []*carav1.EnvVar{{Name: "A", Value: "${P}", SecretVars: vars("env")}}, Files: []*carav1.File{{Path: "/f", Content: "${P}", SecretVars: vars("file")}},
	}}}
	uses := SecretUses(spec)
	if len(uses) != 2 || uses[0] != (SecretUse{"env", "k", "spec.services[0].env[0].secretVars[0].secretKeyRef"}) ||
		uses[1] != (SecretUse{"file", "k", "spec.services[0].files[0].secretVars[0].secretKeyRef"}) {
		t.Errorf("uses %v", uses)
	}
	if got := ProjectFeatures(spec); len(got) != 1 || got[0] != FeatureSecretVars {
		t.Errorf("features %v", got)
	}
}
