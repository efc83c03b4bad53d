package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// engine is Docker's API over its socket, with nothing in between: what it takes is what nobody can go below.
type engine struct {
	http    *http.Client
	version string
}

func openEngine(ctx context.Context, host string) (*engine, error) {
	network, address, ok := strings.Cut(host, "://")
	if !ok {
		return nil, fmt.Errorf("DOCKER_HOST %q is no address such as unix:///var/run/docker.sock", host)
	}
	dialer := &net.Dialer{}
	e := &engine{http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}}}
	var v struct{ Version string }
	if err := e.call(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return nil, err
	}
	e.version = v.Version
	return e, nil
}

func (e *engine) String() string { return "Docker " + e.version }

// call makes one call; in and out may be nil.
func (e *engine) call(ctx context.Context, method, path string, in, out any) error {
	body, err := e.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, body)
	} else {
		err = json.NewDecoder(body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read the engine's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// open makes one call whose answer the caller reads and closes.
func (e *engine) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.41"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil {
			text = []byte(err.Error())
		}
		return nil, fmt.Errorf("engine: %s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp.Body, nil
}

func (e *engine) network(ctx context.Context, name, subnet string) error {
	return e.call(ctx, http.MethodPost, "/networks/create", map[string]any{
		"Name": name, "Driver": "bridge", "IPAM": map[string]any{"Config": []map[string]string{{"Subnet": subnet}}},
	}, nil)
}

func (e *engine) create(ctx context.Context, name, image, network, alias string) error {
	return e.call(ctx, http.MethodPost, "/containers/create?name="+name, map[string]any{
		"Image":      image,
		"HostConfig": map[string]any{"NetworkMode": network},
		"NetworkingConfig": map[string]any{
			"EndpointsConfig": map[string]any{network: map[string]any{"Aliases": []string{alias}}},
		},
	}, nil)
}

func (e *engine) start(ctx context.Context, name string) error {
	return e.call(ctx, http.MethodPost, "/containers/"+name+"/start", nil, nil)
}

// stop asks a container to end, and takes it away.
func (e *engine) stop(ctx context.Context, name string) error {
	if err := e.call(ctx, http.MethodPost, "/containers/"+name+"/stop?t=10", nil, nil); err != nil {
		return err
	}
	return e.drop(ctx, name)
}

func (e *engine) drop(ctx context.Context, name string) error {
	return e.call(ctx, http.MethodDelete, "/containers/"+name+"?force=1&v=1", nil, nil)
}

// dropNetwork asks again while the engine still lets go of the containers that were on the network.
func (e *engine) dropNetwork(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return testcluster.WaitFor(ctx, "network "+name+" is removed", func(ctx context.Context) error {
		return e.call(ctx, http.MethodDelete, "/networks/"+name, nil, nil)
	})
}

func (e *engine) kill(ctx context.Context, name string) error {
	return e.call(ctx, http.MethodPost, "/containers/"+name+"/kill", nil, nil)
}

// event waits for one event of a container, once listening has been told that it would not be missed.
func (e *engine) event(ctx context.Context, event, label string, listening func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filter, err := json.Marshal(map[string][]string{"type": {"container"}, "event": {event}, "label": {label}})
	if err != nil {
		return fmt.Errorf("write event filter: %w", err)
	}
	body, err := e.open(ctx, http.MethodGet, "/events?filters="+url.QueryEscape(string(filter)), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := listening(); err != nil {
		return err
	}
	var first struct{}
	if err := json.NewDecoder(body).Decode(&first); err != nil {
		return fmt.Errorf("listen for %s: %w", event, err)
	}
	return nil
}
