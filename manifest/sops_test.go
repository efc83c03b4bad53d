package manifest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testsops"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/manifest/sops"
)

const sopsSecret = `# A comment that is encrypted, too
apiVersion: caravanserai/v1
kind: Secret
metadata:
  name: db
  labels: {team: "blue"}
stringData:
  password: hunter2-planted # behind a value
  empty: ""
  url_unencrypted: "planted: with a colon"
  lines: |
    planted one
    planted two
data:
  raw: cGxhbnRlZA==
`

const sopsJSON = `{"apiVersion": "caravanserai/v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "hunter2-planted"}}`

func keysOf(t *testing.T, keys ...testsops.Key) *sops.Keys {
	t.Helper()
	values := map[string][]byte{}
	for i, k := range keys {
		values[string(rune('a'+i))] = []byte("# created today\n" + k.Private + "\n")
	}
	k, err := sops.NewKeys("age", values)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func passwordOf(t *testing.T, docs []manifest.Document, problems []*carav1.FileProblem) string {
	t.Helper()
	for _, p := range problems {
		t.Errorf("problem %s", manifest.Format(p))
	}
	if len(docs) != 1 || !docs[0].Encrypted {
		t.Fatalf("%d documents", len(docs))
	}
	return docs[0].Object.(*carav1.Secret).GetStringData()["password"]
}

// TestSOPSFiles decrypts files that the real sops has made, with each of its ways to select what it encrypts.
func TestSOPSFiles(t *testing.T) {
	program, key := testsops.New(t), testsops.NewKey(t)
	tests := map[string]struct {
		name, plain string
		flags       []string
	}{
		"whole file":         {"s.yaml", sopsSecret, nil},
		"encrypted_regex":    {"s.yaml", sopsSecret, []string{"--encrypted-regex", "^(data|stringData)$"}},
		"unencrypted_regex":  {"s.yaml", sopsSecret, []string{"--unencrypted-regex", "^(apiVersion|kind|metadata)$"}},
		"unencrypted_suffix": {"s.yaml", sopsSecret, []string{"--unencrypted-suffix", "_unencrypted"}},
		"encrypted_suffix":   {"s.yaml", sopsSecret, []string{"--encrypted-suffix", "Data"}},
		"json":               {"s.json", sopsJSON, nil},
		"json, one field":    {"s.json", sopsJSON, []string{"--encrypted-regex", "password"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			encrypted := program.Encrypt(tt.name, tt.plain, key, tt.flags...)
			if strings.Contains(encrypted, "hunter2") {
				t.Fatalf("sops did not encrypt\n%s", encrypted)
			}
			docs, problems := manifest.Reading{Keys: keysOf(t, testsops.NewKey(t), key)}.Parse(tt.name, []byte(encrypted))
			if got := passwordOf(t, docs, problems); got != "hunter2-planted" {
				t.Errorf("password %q", got)
			}
			secret := docs[0].Object.(*carav1.Secret)
			if tt.plain == sopsSecret && (secret.StringData["lines"] != "planted one\nplanted two\n" || string(secret.Data["raw"]) != "planted" ||
				secret.StringData["url_unencrypted"] != "planted: with a colon" || secret.Metadata.Labels["team"] != "blue") {
				t.Errorf("got %v", secret)
			}
		})
	}
	t.Run("mac_only_encrypted", func(t *testing.T) {
		p := testsops.New(t)
		p.Config = "creation_rules:\n- age: " + key.Public + "\n  encrypted_regex: ^(data|stringData)$\n  mac_only_encrypted: true\n"
		encrypted := p.Run("s.yaml", sopsSecret, key, "encrypt")
		if !strings.Contains(encrypted, "mac_only_encrypted: true") {
			t.Fatal(encrypted)
		}
		docs, problems := manifest.Reading{Keys: keysOf(t, key)}.Parse("s.yaml", []byte(strings.Replace(encrypted, "blue", "red", 1)))
		passwordOf(t, docs, problems)
	})
	t.Run("several documents", func(t *testing.T) {
		encrypted := program.Encrypt("s.yaml", sopsSecret+"---\n"+strings.Replace(sopsSecret, "name: db", "name: other", 1), key)
		docs, problems := manifest.Reading{Keys: keysOf(t, key)}.Parse("s.yaml", []byte(encrypted))
		if len(docs) != 2 || len(problems) > 0 || docs[1].Name != "other" {
			t.Errorf("%d documents, %v", len(docs), problems)
		}
	})
	t.Run("a list", func(t *testing.T) { // no Secret has one; the MAC covers it all the same
		encrypted := program.Encrypt("s.yaml", sopsSecret+"list:\n- one # first\n# planted note\n- {a: 1, b: true, c: 1.5, d: null}\n", key)
		_, problems := manifest.Reading{Keys: keysOf(t, key)}.Parse("s.yaml", []byte(encrypted))
		if len(problems) != 1 || !strings.Contains(problems[0].Message, "unknown field") {
			t.Errorf("%v", problems)
		}
	})
	t.Run("rotated", func(t *testing.T) {
		next := testsops.NewKey(t)
		encrypted := program.Encrypt("s.yaml", sopsSecret, key)
		rotated := program.Run("s.yaml", encrypted, key, "rotate", "--add-age", next.Public, "--rm-age", key.Public)
		docs, problems := manifest.Reading{Keys: keysOf(t, key, next)}.Parse("s.yaml", []byte(rotated))
		passwordOf(t, docs, problems)
		_, problems = manifest.Reading{Keys: keysOf(t, key)}.Parse("s.yaml", []byte(rotated))
		quiet(t, problems, `no age key in Secret "age" can decrypt it; it is encrypted for `+next.Public)
	})
}

// quiet wants one problem with these words, and nothing of a value or a key in it.
func quiet(t *testing.T, problems []*carav1.FileProblem, words string) {
	t.Helper()
	if len(problems) == 0 || !strings.Contains(problems[0].Message, words) || problems[0].Line == 0 {
		t.Errorf("problems %v, want %q with a line", problems, words)
	}
	for _, p := range problems {
		for _, planted := range []string{"planted", "hunter2", "AGE-SECRET", "ENC["} {
			if strings.Contains(manifest.Format(p), planted) {
				t.Errorf("%q has %s", manifest.Format(p), planted)
			}
		}
	}
}

// TestSOPSRefusals: whatever is wrong with an encrypted file, nothing of it is used, and no text has a value of it.
func TestSOPSRefusals(t *testing.T) {
	program, key := testsops.New(t), testsops.NewKey(t)
	good := program.Encrypt("s.yaml", sopsSecret, key, "--encrypted-regex", "^(data|stringData)$")
	line := func(text, begin string) string {
		for l := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(l), begin) {
				return l
			}
		}
		t.Fatalf("no line %s in\n%s", begin, text)
		return ""
	}
	password, lines, mac := line(good, "password:"), line(good, "lines:"), line(good, "mac:")
	flip := func(text, l string) string { // the first character of the ciphertext
		i := strings.Index(l, "data:") + len("data:")
		c := "A"
		if l[i] == 'A' {
			c = "B"
		}
		return strings.Replace(text, l, l[:i]+c+l[i+1:], 1)
	}
	swapped := strings.Replace(strings.Replace(good, password, strings.Replace(lines, "lines:", "password:", 1), 1), lines, strings.Replace(password, "password:", "lines:", 1), 1)
	tests := map[string]struct {
		text, words string
		keys        *sops.Keys
	}{
		"no keys":              {good, "spec.decryption.secretRef", nil},
		"wrong key":            {good, `no age key in Secret "age" can decrypt it; it is encrypted for ` + key.Public, keysOf(t, testsops.NewKey(t))},
		"value changed":        {flip(good, password), "this value cannot be decrypted", keysOf(t, key)},
		"values swapped":       {swapped, "this value cannot be decrypted", keysOf(t, key)},
		"plain value changed":  {strings.Replace(good, "blue", "red", 1), "its MAC does not match", keysOf(t, key)},
		"value removed":        {strings.Replace(good, password, "", 1), "its MAC does not match", keysOf(t, key)},
		"plain value added":    {strings.Replace(good, "stringData:\n", "stringData:\n    more: planted\n", 1), "must be encrypted by the rules", keysOf(t, key)},
		"encrypted where not":  {strings.Replace(good, "blue", strings.TrimSpace(strings.SplitN(password, ":", 2)[1]), 1), "the rules in the sops block say that it is not", keysOf(t, key)},
		"MAC changed":          {flip(good, mac), "its MAC does not match", keysOf(t, key)},
		"MAC of another file":  {strings.Replace(good, mac, line(program.Encrypt("s.yaml", sopsSecret, key), "mac:"), 1), "its MAC does not match", keysOf(t, key)},
		"no MAC":               {strings.Replace(good, mac, "", 1), "has no MAC", keysOf(t, key)},
		"other time":           {strings.Replace(good, line(good, "lastmodified:"), "    lastmodified: \"2001-01-01T00:00:00Z\"\n", 1), "its MAC does not match", keysOf(t, key)},
		"rules changed":        {strings.Replace(good, "^(data|stringData)$", "^nothing$", 1), "the rules in the sops block say that it is not", keysOf(t, key)},
		"bad rules":            {strings.Replace(good, "^(data|stringData)$", "(", 1), "a regular expression", keysOf(t, key)},
		"key groups":           {good + "    shamir_threshold: 2\n    key_groups:\n        - age: []\n", "key groups (Shamir's secret sharing)", keysOf(t, key)},
		"comment rules":        {good + "    encrypted_comment_regex: sops:enc\n", "comments select what is encrypted", keysOf(t, key)},
		"no sops block":        {good[:strings.Index(good, "sops:\n")], "is still encrypted by SOPS", keysOf(t, key)},
		"second document":      {good + "---\n" + sopsSecret, "this document has no sops block", keysOf(t, key)},
		"encrypted Project":    {program.Encrypt("s.yaml", "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: planted}\nspec: {services: [{name: web, image: planted}]}\n", key), "may declare Secrets only", keysOf(t, key)},
		"wrong kind of value":  {program.Encrypt("s.yaml", strings.Replace(sopsSecret, "hunter2-planted", "1234567", 1), key), "must be text", keysOf(t, key)},
		"encrypted wrong kind": {program.Encrypt("s.yaml", strings.Replace(sopsSecret, "kind: Secret", "kind: hunter2", 1), key), "must be Project", keysOf(t, key)},
		"the file is cut":      {good[:len(good)*3/4], "", keysOf(t, key)},
		"sops is a text":       {sopsSecret + "sops: planted\n", "not as sops writes it", keysOf(t, key)},
		"binary":               {program.Run("s.yaml", sopsSecret, key, "encrypt", "--age", key.Public, "--input-type", "binary", "--output-type", "json"), "", keysOf(t, key)},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		tt := tests[name]
		t.Run(name, func(t *testing.T) {
			docs, problems := manifest.Reading{Keys: tt.keys}.Parse("s.yaml", []byte(tt.text))
			quiet(t, problems, tt.words)
			if len(docs) > 0 {
				t.Errorf("%d documents are used", len(docs))
			}
			for _, p := range problems {
				if strings.Contains(manifest.Format(p), "1234567") {
					t.Errorf("%q has the value", manifest.Format(p))
				}
			}
		})
	}
}

func TestSOPSKeys(t *testing.T) {
	key := testsops.NewKey(t)
	for name, values := range map[string]map[string][]byte{
		"no key":        {},
		"not a key":     {"k": []byte("hunter2-planted")},
		"a public key":  {"k": []byte(key.Public)},
		"a damaged key": {"k": []byte(key.Private[:len(key.Private)-2] + "QQ")},
		"one of two":    {"a": []byte(key.Private), "k": []byte("# planted\n")},
	} {
		if _, err := sops.NewKeys("age", values); err == nil || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "AGE-SECRET-KEY-1"+key.Private[16:20]) ||
			!strings.Contains(err.Error(), `Secret "age"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
