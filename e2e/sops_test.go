package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testsops"
)

// TestSecretsInGit: a Secret that SOPS has encrypted for age comes with the push that uses it. The source owns it. Errors concern
// one file, keys can be rotated, and what leaves git goes when nothing uses it.
func TestSecretsInGit(t *testing.T) {
	program, key, next := testsops.New(t), testsops.NewKey(t), testsops.NewKey(t)
	w := oneNode(t)
	db, shop, planted := w.name("db"), w.name("shop"), "hunter2-planted"
	secret := func(value string) string {
		return "apiVersion: caravanserai/v1\nkind: Secret\nmetadata:\n  name: " + db + "\nstringData:\n  password: " + value + "\n"
	}
	fields := []string{"--encrypted-regex", "^(data|stringData)$"}
	repo := w.repository("platform", "allowEmpty: true")
	reconcile := func(code int, words ...string) {
		t.Helper()
		r := w.ctl("", "reconcile", "platform", "--timeout", "3m")
		if r.Code != code {
			t.Errorf("%+v, want code %d", r, code)
		}
		w.says("reconcile", r.Stderr, words...)
	}
	push := func(message string, code int, words ...string) {
		t.Helper()
		repo.Commit(message)
		repo.Push()
		reconcile(code, words...)
	}
	decryption := func(text string) {
		t.Helper()
		s := w.ctl("", "get", "source", "platform", "-o", "yaml").Stdout
		before, _, _ := strings.Cut(s, "\n  decryption:")
		before, _, _ = strings.Cut(before, "\nstatus:")
		w.apply(before + "\n" + text)
	}

	repo.Write("db.yaml", program.Encrypt("db.yaml", secret(planted), key, fields...))
	repo.Write("shop.yaml", project(shop, "services:\n- name: web\n  image: "+testimage.WebV1+"\n  env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: "+db+", key: password}}}]"))
	push("A project and its Secret", 1, "db.yaml:", "spec.decryption.secretRef")

	w.secret("age", map[string]string{"old": key.Private})
	decryption("  decryption: {secretRef: age}\n")
	w.running(shop) // the project was refused without its Secret, and is tried again
	reconcile(0)
	if env := w.env(shop, "web"); !slices.Contains(env, "PASSWORD="+planted) {
		t.Errorf("the environment is %v", env)
	}
	if r := w.ctl("", "delete", "secret", db); r.Code != 1 || !strings.Contains(r.Stderr, `Secret "`+db+`" belongs to source/platform, db.yaml: change it in git`) {
		t.Errorf("%+v", r)
	}
	if r := w.ctl(secret("mine"), "apply", "-f", "-"); r.Code != 1 || !strings.Contains(r.Stderr, "belongs to source/platform") {
		t.Errorf("%+v", r)
	}
	if r := w.ctl(project(w.name("thief"), "services:\n- name: web\n  image: "+testimage.WebV1+"\n  env: [{name: K, valueFrom: {secretKeyRef: {name: age, key: old}}}]"), "apply", "-f", "-"); r.Code != 1 {
		t.Errorf("a project uses the key: %+v", r)
	}

	// A new value recreates what uses it.
	repo.Write("db.yaml", program.Encrypt("db.yaml", secret(planted+"-2"), key))
	push("A new password, and the whole file encrypted", 0)
	w.until(shop, "has the new value", func(p *carav1.Project) bool {
		return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) && slices.Contains(w.env(shop, "web"), "PASSWORD="+planted+"-2")
	})

	// A file that cannot be decrypted concerns that file alone.
	repo.Write("other.yaml", program.Encrypt("other.yaml", strings.Replace(secret("x"), db, w.name("other"), 1), next, fields...))
	repo.Write("shop.yaml", project(shop, "services:\n- name: web\n  image: "+testimage.WebV2+"\n  env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: "+db+", key: password}}}]"))
	push("A file for a key that Cara does not have", 1, "other.yaml:", "no age key in Secret \"age\" can decrypt it")
	w.running(shop)
	if image := w.project(shop).GetSpec().GetServices()[0].GetImage(); image != testimage.WebV2 {
		t.Errorf("the project has image %s", image)
	}
	// The key is added: the same revision is read again. Then the old one is removed.
	w.secret("age", map[string]string{"old": key.Private, "new": next.Private})
	reconcile(0)
	repo.Write("db.yaml", program.Encrypt("db.yaml", secret(planted+"-2"), next))
	push("Everything for the new key", 0)
	w.secret("age", map[string]string{"new": next.Private})
	reconcile(0)
	w.ctl("", "delete", "secret", "age")
	reconcile(1, `names secret "age" in spec.decryption.secretRef, which does not exist`)
	w.secret("age", map[string]string{"new": next.Private})
	reconcile(0)

	// A Secret of a person is not taken over.
	w.secret(w.name("mine"), map[string]string{"password": "x"})
	repo.Write("mine.yaml", program.Encrypt("mine.yaml", strings.Replace(secret("y"), db, w.name("mine"), 1), next, fields...))
	push("A name that is taken", 1, "mine.yaml:1", "was not declared by a source")
	w.ctl("", "delete", "secret", w.name("mine"))
	reconcile(0)

	// What left git stays while it is used.
	repo.Remove("db.yaml")
	repo.Remove("mine.yaml")
	push("The Secrets leave", 0)
	names := w.ctl("", "get", "secrets", "-o", "name").Stdout
	if !strings.Contains(names, "secret/"+db+"\n") || strings.Contains(names, w.name("mine")) {
		t.Errorf("there are the Secrets\n%s", names)
	}
	repo.Remove("shop.yaml")
	push("The project leaves", 0)
	w.gone(shop)
	if names := w.ctl("", "get", "secrets", "-o", "name").Stdout; strings.Contains(names, db) {
		t.Errorf("there are the Secrets\n%s", names)
	}
	w.nowhere(planted)
	w.nowhere(key.Private[:40])
	w.nowhere(next.Private[:40])
}

// plantEncrypted plants values of Secrets that SOPS has encrypted, in files that can be used and in files that are damaged, and the
// keys themselves.
func (w *testCluster) plantEncrypted(p *secretValues) {
	w.Helper()
	program, key, other := testsops.New(w.T), testsops.NewKey(w.T), testsops.NewKey(w.T)
	p.values = append(p.values, secretValue{key.Private, "the age key of a source"})
	w.secret("age", map[string]string{"key1": key.Private})
	w.secret("noage", map[string]string{"key1": p.one("what is not an age key")})
	o := w.origin("encrypted", map[string]string{})
	secret := func(name string) string {
		return "apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData:\n  key1: " + p.one("a Secret in git") + "\n  key2: " + p.one("a Secret in git") + "\n"
	}
	rules := []string{"--encrypted-regex", "^stringData$"}
	good := program.Encrypt("s.yaml", secret("fromgit"), key, rules...)
	o.Write("good.yaml", good)
	o.Write("whole.yaml", program.Encrypt("s.yaml", secret("fromgit2"), key))
	o.Write("other.yaml", program.Encrypt("s.yaml", secret("fromgit3"), other, rules...))
	o.Write("mac.yaml", strings.Replace(program.Encrypt("s.yaml", secret("fromgit4"), key, rules...), "name: fromgit4", "name: fromgit5", 1))
	o.Write("taken.yaml", program.Encrypt("s.yaml", secret("env"), key, rules...))
	o.Write("plain.yaml", secret("fromgit6"))
	o.Write("invalid.yaml", program.Encrypt("s.yaml", strings.Replace(secret("fromgit7"), "stringData:", "type: tls\nstringData:", 1), key, rules...))
	o.Write("project.yaml", program.Encrypt("s.yaml", project("fromgit8", "services: [{name: web, image: "+p.one("an encrypted Project")+"}]"), key))
	o.save("Secrets of all kinds")
	// read waits for a snapshot. Without keys, the two files that are encrypted as a whole are skipped with a warning each.
	read := func(what string, warnings int) {
		w.Helper()
		w.untilSource("encrypted", what, func(s *carav1.Source) bool {
			head := s.GetStatus().GetSnapshot()
			return !api.IsTrue(s.GetStatus().GetConditions(), api.CondFetchFailed) && head.GetErrorCount() == 6 && len(head.GetWarnings()) == warnings
		})
	}
	decryptWith := func(name string) {
		w.Helper()
		w.source("encrypted", "url: "+o.server.RepoURL("encrypted"), "decryption: {secretRef: "+name+"}")
	}
	read("has read without keys", 2)
	decryptWith("noage")
	w.untilSource("encrypted", "does not take noage for keys", func(s *carav1.Source) bool {
		failed := condition(s.GetStatus().GetConditions(), api.CondFetchFailed)
		return failed.GetStatus() == api.StatusTrue && strings.Contains(failed.GetMessage(), `Secret "noage" has no age identities`)
	})
	decryptWith("age")
	read("has read with age", 0)
	if names := w.ctl("", "get", "secrets", "-o", "name").Stdout; !strings.Contains(names, "secret/fromgit\n") || !strings.Contains(names, "secret/fromgit2\n") || strings.Contains(names, "fromgit3") {
		w.Errorf("there are the Secrets\n%s", names)
	}
}
