package backup

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestChildEndsWithTheAgent kills a process that runs a command as the agent runs restic. The command must end, too.
func TestChildEndsWithTheAgent(t *testing.T) {
	const asAgent = "CARA_TEST_AS_AGENT"
	if os.Getenv(asAgent) != "" {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "echo $$; exec sleep 1000")
		cmd.SysProcAttr, cmd.Stdout = childAttributes(), os.Stdout
		t.Fatal("the command ended by itself: ", runPinned(cmd))
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.CommandContext(t.Context(), program, "-test.run=^TestChildEndsWithTheAgent$")
	agent.Env = append(os.Environ(), asAgent+"=1")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child := strings.TrimSpace(line)
	for until := time.Now().Add(30 * time.Second); runs(child); {
		if time.Now().After(until) {
			t.Fatalf("process %s still runs after the agent was killed", child)
		}
	}
	_ = agent.Wait() // killed
}

// runs reports whether a process exists and is no zombie.
func runs(pid string) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
