package scrub

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

// spellings of a value as programs write it.
func spellings(v string) []string {
	out := []string{v, quoted(v), inJSON(v)}
	for _, escaped := range []string{url.QueryEscape(v), url.PathEscape(v)} {
		out = append(out, escaped, lowerEscapes(escaped))
	}
	if len(v) >= anywhere {
		out = append(out, hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))))
	}
	return append(out, base64s(v)...)
}

func quoted(v string) string {
	q := strconv.Quote(v)
	return q[1 : len(q)-1]
}

func inJSON(v string) string {
	q, err := json.Marshal(v)
	if err != nil {
		return v
	}
	return string(q[1 : len(q)-1])
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i:i+3], strings.ToLower(s[i:i+3]))
		}
	}
	return string(out)
}

// base64s are the base64 of a value alone, and what of it is the same wherever it stands in a longer text.
func base64s(v string) []string {
	out := []string{base64.StdEncoding.EncodeToString([]byte(v)), base64.URLEncoding.EncodeToString([]byte(v))}
	if len(v) < anywhere {
		return out
	}
	for before := range 3 {
		padded := append(make([]byte, before), v...)
		first := []int{0, 2, 3}[before] // characters that also hold bits of what stands before
		last := len(padded) * 8 / 6     // and behind
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			out = append(out, e.EncodeToString(padded)[first:last])
		}
	}
	return out
}

func encodeBase64(v []byte) string { return base64.StdEncoding.EncodeToString(v) }
