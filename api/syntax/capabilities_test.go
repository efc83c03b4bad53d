package syntax_test

import (
	"testing"

	"github.com/caravanserai/cara/api/syntax"
)

func TestParseCapability(t *testing.T) {
	for text, want := range map[string]string{"NET_ADMIN": "NET_ADMIN", "cap_sys_ptrace": "SYS_PTRACE", "ALL": "", "": "", "NET_FLY": "", "CHOWN": "CHOWN"} {
		got, err := syntax.ParseCapability(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}
