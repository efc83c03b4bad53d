package docker

import "testing"

func TestExitCodeOf(t *testing.T) {
	const failed = "OCI runtime exec failed: exec failed: unable to start container process: "
	for name, tt := range map[string]struct {
		code   int
		output string
		want   int
	}{
		"not in PATH":          {126, failed + `exec: "nosuch": executable file not found in $PATH: unknown` + "\r\n", 127},
		"no such path":         {126, failed + `exec: "/no/such": stat /no/such: no such file or directory: unknown` + "\r\n", 127},
		"not executable":       {126, failed + `exec: "/etc/passwd": permission denied: unknown`, 126},
		"the command's own":    {126, "cat: x: no such file or directory\n", 126},
		"an engine that knows": {127, failed + "executable file not found", 127},
		"a success":            {0, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exitCodeOf(tt.code, tt.output); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
