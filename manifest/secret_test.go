package manifest_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/manifest"
)

// token is a Secret's value in every document below.
const token = "48151623xq"

// TestProblemsNeverQuoteASecret breaks Secret documents in all usual ways. A problem has the place and the reason, and no
// part of a value.
func TestProblemsNeverQuoteASecret(t *testing.T) {
	head := "apiVersion: caravanserai/v1\nkind: Secret\nmetadata:\n  name: db\n"
	json := `{"apiVersion": "caravanserai/v1", "kind": "Secret", "metadata": {"name": "db"}, `
	tests := map[string]string{
		"number":                     head + "stringData: {pin: 48151623}\n",
		"float":                      head + "stringData: {pin: 48151623.5}\n",
		"date in data":               head + "data: {pin: 2001-01-01}\n",
		"true":                       head + "stringData: {pin: true}\n",
		"text for a map":             head + "stringData: TOKEN\n",
		"number for a map":           head + "stringData: 48151623\n",
		"list of texts":              head + "stringData: [TOKEN]\n",
		"list for a value":           head + "stringData: {pin: [TOKEN]}\n",
		"map for a value":            head + "stringData: {pin: {TOKEN: TOKEN}}\n",
		"flow map without a value":   head + "stringData: {TOKEN}\n",
		"value for a key":            head + "stringData: {\"TOKEN is it\": x}\n",
		"key of control characters":  head + "stringData: {\"TOKEN\\t\": x}\n",
		"merge of a text":            head + "stringData: {<<: TOKEN}\n",
		"merge of texts":             head + "stringData: {<<: [TOKEN]}\n",
		"complex key":                head + "stringData:\n  ? [TOKEN]\n  : x\n",
		"tag":                        head + "stringData: {pin: !TOKEN x}\n",
		"tag of a map":               head + "stringData: !TOKEN {pin: x}\n",
		"tag and value":              head + "stringData: {pin: !x TOKEN}\n",
		"alias":                      head + "stringData: {pin: *TOKEN}\n",
		"anchor":                     head + "stringData: {pin: &TOKEN 5}\n",
		"directive":                  head + "stringData:\n  pin: %TOKEN\n",
		"at sign":                    head + "stringData:\n  pin: @TOKEN\n",
		"quote that does not end":    head + "stringData:\n  pin: \"TOKEN\n",
		"escape":                     head + "stringData:\n  pin: \"TOKEN\\q\"\n",
		"text behind a quote":        head + "stringData:\n  pin: \"x\"TOKEN\n",
		"colon in a value":           head + "stringData:\n  pin: TOKEN: TOKEN\n",
		"tab":                        head + "stringData:\n\tpin: TOKEN\n",
		"no base64":                  head + "data: {pin: TOKEN!}\n",
		"number as base64":           head + "data: {pin: 48151623}\n",
		"wrong place":                head + "TOKEN: x\n",
		"wrong place with a value":   head + "pin: TOKEN\n",
		"wrong level":                head + "  pin: TOKEN\n",
		"type":                       head + "type: TOKEN\n",
		"type of a list":             head + "type: [TOKEN]\n",
		"name":                       "apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: \"TOKEN TOKEN\"}\n",
		"name of a number":           "apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: 48151623}\n",
		"metadata":                   "apiVersion: caravanserai/v1\nkind: Secret\nmetadata: TOKEN\n",
		"label":                      head + "  labels: {x: \"TOKEN TOKEN\"}\n",
		"label of a number":          head + "  labels: {x: 48151623}\n",
		"control character":          head + "stringData: {pin: \"TOKEN\x01\"}\n",
		"many keys":                  head + "stringData: {" + strings.Repeat("\"TOKEN!\": x, ", 120) + "}\n",
		"nested":                     head + "stringData: {pin: " + strings.Repeat("[", 80) + "TOKEN" + strings.Repeat("]", 80) + "}\n",
		"json number":                json + `"stringData": {"pin": 48151623}}`,
		"json text":                  json + `"stringData": "TOKEN"}`,
		"json null":                  json + `"stringData": {"TOKEN": null}}`,
		"json without quotes":        json + `"stringData": {"pin": TOKEN}}`,
		"json escape":                json + `"stringData": {"pin": "\qTOKEN"}}`,
		"json surrogate":             json + `"stringData": {"pin": "TOKEN\ud800"}}`,
		"json end":                   json + `"stringData": {"pin": "TOKEN`,
		"json two values":            json + `"stringData": {"pin": "x" "TOKEN"}}`,
		"yaml with a wrong kind":     "apiVersion: caravanserai/v1\nkind: Secrets\nstringData: {pin: 48151623}\n",
		"yaml without a kind":        "apiVersion: caravanserai/v1\nstringData: {pin: 48151623}\n",
		"a list of a Secret":         "- apiVersion: caravanserai/v1\n  kind: Secret\n  stringData: {pin: TOKEN}\n",
		"a second document's number": head + "stringData: {a: b}\n---\n" + head + "stringData: {pin: 48151623}\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			file := "secret.yaml"
			if strings.HasPrefix(text, "{") {
				file = "secret.json"
			}
			_, problems := manifest.Parse(file, []byte(strings.ReplaceAll(text, "TOKEN", token)), manifest.Limits{})
			if len(problems) == 0 && name != "anchor" {
				t.Error("no problem was found")
			}
			for _, p := range problems {
				for _, part := range []string{"48151623", "xq", "2001"} {
					if strings.Contains(manifest.Format(p), part) {
						t.Errorf("%s\n\thas %q of the value", manifest.Format(p), part)
					}
				}
				if p.GetLine() == 0 || p.GetMessage() == "" {
					t.Errorf("%s\n\tsays not where or not what", manifest.Format(p))
				}
			}
		})
	}
}
