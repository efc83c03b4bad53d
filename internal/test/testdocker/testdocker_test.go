package testdocker

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestFixtureImages runs the web and kv images as a project of two services would be run, on a real engine.
func TestFixtureImages(t *testing.T) {
	host := Engine(t)
	exerciseImages(t, host, func(network, addr string) (net.Conn, error) { return net.Dial(network, addr) })
}

// TestSecondEngine does the same on an engine in a network namespace, and sees it taken away.
func TestSecondEngine(t *testing.T) {
	var second *Second
	t.Run("runs containers", func(t *testing.T) {
		second = SecondEngine(t)
		Images(t, second.Host, testimage.Busybox)
		out, err := second.Command(t.Context(), "ip", "-br", "addr").CombinedOutput()
		if err != nil || !strings.Contains(string(out), second.Address) {
			t.Errorf("in the namespace: %v\n%s\nwant %s in it", err, out, second.Address)
		}
		id := run(t, second.Host, "bb", &container.Config{Image: testimage.Busybox, Cmd: []string{"ip", "addr"}}, nil)
		if code := wait(t, second.Host, id); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
	if second == nil {
		t.Skip("no second engine")
	}
	for _, path := range []string{second.NetNS, strings.TrimPrefix(second.Host, "unix://"), "/sys/class/net/cv-" + second.Name} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there after the test (%v)", path, err)
		}
	}
}

func exerciseImages(t *testing.T, host string, dial func(network, addr string) (net.Conn, error)) {
	Images(t, host)
	started := time.Now()
	Images(t, host)
	t.Logf("loading them again took %s", time.Since(started).Round(time.Millisecond))
	labels := testLabels(t, host)
	docker, err := Client(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { docker.Close() })
	net1, err := docker.NetworkCreate(t.Context(), "testdocker-"+labels["test"], network.CreateOptions{Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker.VolumeCreate(t.Context(), volume.CreateOptions{Name: "testdocker-" + labels["test"], Labels: labels}); err != nil {
		t.Fatal(err)
	}
	onNetwork := func(alias string) *network.NetworkingConfig {
		return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{net1.ID: {Aliases: []string{alias}}}}
	}
	run(t, host, "kv", &container.Config{Image: testimage.KV, Labels: labels}, onNetwork("kv"), "testdocker-"+labels["test"]+":/data")
	web := run(t, host, "web", &container.Config{
		Image: testimage.WebV1, Labels: labels, Hostname: "pod", Env: []string{"KV_ADDR=kv:6380", "GREETING=hello"},
	}, onNetwork("web"))
	inspected, err := docker.ContainerInspect(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + inspected.NetworkSettings.Networks["testdocker-"+labels["test"]].IPAddress + ":8080"
	waitFor(t, func() bool { status, _ := get(t, base+"/healthz"); return status == http.StatusOK })
	waitFor(t, func() bool {
		_, body := get(t, base+"/")
		return strings.HasPrefix(body, "hello\nweb v1 on pod\nvisits ")
	})
	if _, body := get(t, base+"/env"); !strings.Contains(body, "GREETING=hello\n") {
		t.Errorf("/env lacks GREETING:\n%s", body)
	}
	webSocketEcho(t, dial, strings.TrimPrefix(base, "http://"))
	held := Labelled(t, host, labels)
	if len(held.Containers) != 2 || len(held.Networks) != 1 || len(held.Volumes) != 1 {
		t.Errorf("held under %v:\n%s\nwant 2 containers, 1 network, 1 volume", labels, held)
	}
	stopIn := 3
	if err := docker.ContainerStop(t.Context(), web, container.StopOptions{Timeout: &stopIn}); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, host, web); code != 0 {
		t.Errorf("web ends with %d on SIGTERM, want 0", code)
	}
	job := run(t, host, "job", &container.Config{Image: testimage.Job, Labels: labels, Cmd: []string{"-lines", "2", "-exit", "7"}}, nil)
	if code := wait(t, host, job); code != 7 {
		t.Errorf("job ends with %d, want 7", code)
	}
	if err := Remove(t.Context(), host, labels); err != nil {
		t.Fatal(err)
	}
	if held := Labelled(t, host, labels); !held.Empty() {
		t.Errorf("left after Remove:\n%s", held)
	}
}

// testLabels returns labels of this test only, and removes everything with them afterwards.
func testLabels(t *testing.T, host string) map[string]string {
	labels := map[string]string{"test": fmt.Sprintf("%d-%s", os.Getpid(), short(t.Name()))}
	t.Cleanup(func() {
		if err := Remove(context.WithoutCancel(t.Context()), host, labels); err != nil {
			t.Error(err)
		}
	})
	return labels
}

func run(t *testing.T, host, name string, config *container.Config, net *network.NetworkingConfig, binds ...string) string {
	t.Helper()
	docker, err := Client(host)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	name = fmt.Sprintf("testdocker-%d-%s", os.Getpid(), name)
	made, err := docker.ContainerCreate(t.Context(), config, &container.HostConfig{Binds: binds}, net, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

func wait(t *testing.T, host, id string) int64 {
	t.Helper()
	docker, err := Client(host)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	ended, failed := docker.ContainerWait(t.Context(), id, container.WaitConditionNotRunning)
	select {
	case result := <-ended:
		return result.StatusCode
	case err := <-failed:
		t.Fatal(err)
	}
	return -1
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(120 * time.Second)
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within two minutes")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func webSocketEcho(t *testing.T, dial func(network, addr string) (net.Conn, error), addr string) {
	t.Helper()
	conn, err := dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", key)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("websocket handshake: %v, %v", response, err)
	}
	masked := []byte{0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2}
	if _, err := conn.Write(masked); err != nil {
		t.Fatal(err)
	}
	echoed := make([]byte, 4)
	if _, err := io.ReadFull(reader, echoed); err != nil || string(echoed) != "\x81\x02hi" {
		t.Errorf("websocket echo %q, %v, want a text frame with hi", echoed, err)
	}
}
