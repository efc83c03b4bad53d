package scrub

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

// spellings returns a value in the encodings of programs.
func spellings(v string) []string {
	inJSON, _ := json.Marshal(v) // a text can always be encoded
	quoted := strconv.Quote(v)
	out := []string{v, quoted[1 : len(quoted)-1], string(inJSON[1 : len(inJSON)-1])}
	for _, escaped := range []string{url.QueryEscape(v), url.PathEscape(v)} {
		out = append(out, escaped, lowerEscapes(escaped))
	}
	if len(v) >= anywhere {
		out = append(out, hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))))
	}
	return append(out, base64s(v)...)
}

// lowerEscapes changes %2F to %2f.
func lowerEscapes(s string) string {
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i:i+3], strings.ToLower(s[i:i+3]))
		}
	}
	return string(out)
}

// base64s returns the base64 of a value, and the part of it that is the same in any longer text.
func base64s(v string) []string {
	out := []string{base64.StdEncoding.EncodeToString([]byte(v)), base64.URLEncoding.EncodeToString([]byte(v))}
	if len(v) < anywhere {
		return out
	}
	for before := range 3 {
		padded := append(make([]byte, before), v...)
		first := []int{0, 2, 3}[before] // these characters also encode bits of the preceding text
		last := len(padded) * 8 / 6     // and of the following text
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			out = append(out, e.EncodeToString(padded)[first:last])
		}
	}
	return out
}
