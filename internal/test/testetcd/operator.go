package testetcd

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// Replace removes a member that is lost for good, and starts one without data in its place, as an operator does with `etcdctl member`.
// Another member must run.
func (c *Cluster) Replace(i int) {
	c.tb.Helper()
	c.must(os.RemoveAll(c.DataDir(i)))
	through := (i + 1) % len(c.members)
	var list struct {
		Members []struct {
			ID       string   `json:"ID"`
			PeerURLs []string `json:"peerURLs"`
		} `json:"members"`
	}
	c.call(through, "cluster/member/list", struct{}{}, &list)
	for _, m := range list.Members {
		if slices.Contains(m.PeerURLs, c.peers[i]) {
			c.call(through, "cluster/member/remove", map[string]any{"ID": m.ID}, nil)
		}
	}
	c.call(through, "cluster/member/add", map[string]any{"peerURLs": []string{c.peers[i]}}, nil)
	c.state = "existing"
	c.Run(i)
}

// Delete removes a key, as an operator does with `etcdctl del`.
func (c *Cluster) Delete(key string) {
	c.tb.Helper()
	var answer struct {
		Deleted string `json:"deleted"`
	}
	c.call(0, "kv/deleterange", map[string]any{"key": base64.StdEncoding.EncodeToString([]byte(key))}, &answer)
	if answer.Deleted != "1" {
		c.tb.Fatalf("etcd deleted %q keys for %s", answer.Deleted, key)
	}
}

// call calls a member's JSON gateway. It repeats the call while the cluster elects a leader, or a member has just come back.
func (c *Cluster) call(i int, method string, in, out any) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
	defer cancel()
	body, err := json.Marshal(in)
	c.must(err)
	c.must(testcluster.WaitFor(ctx, "etcd does "+method, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoints[i]+"/v3/"+method, bytes.NewReader(body))
		if err != nil {
			return err
		}
		answer, err := c.client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		switch {
		case err != nil:
			return err
		case answer.StatusCode == http.StatusServiceUnavailable:
			return fmt.Errorf("%s %s", answer.Status, text)
		case answer.StatusCode != http.StatusOK:
			return testcluster.Fatal(fmt.Errorf("%s %s", answer.Status, text))
		case out == nil:
			return nil
		}
		return json.Unmarshal(text, out)
	}))
}

// Leader returns which member is the leader. It waits for the end of an election.
func (c *Cluster) Leader() int {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
	defer cancel()
	leader := -1
	c.must(testcluster.WaitFor(ctx, "a member of etcd is the leader", func(context.Context) error {
		for i, p := range c.members {
			if !p.Exited() && c.leads(i) { //nolint:contextcheck // it has that of the test
				leader = i
				return nil
			}
		}
		return errors.New("none says that it is")
	}))
	return leader
}

// leads reports whether a member says that it is the leader.
func (c *Cluster) leads(i int) bool {
	c.tb.Helper()
	var said struct {
		Header struct {
			Member string `json:"member_id"`
		} `json:"header"`
		Leader string `json:"leader"`
	}
	c.call(i, "maintenance/status", struct{}{}, &said)
	return said.Leader == said.Header.Member
}
